"""The mathematics of the kernels, readable, on any device and of any precision.

Other kernels are held against these functions: spikes to the bit, gradients up to rounding. A
current is ``[T, B, C, ...]``, or ``[B, C, ...]`` where it is constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from avsnn.models.kernels.layer import Layer


NAME = "torch"


def exact(tensor: Tensor) -> Tensor:
    """In memory as this reads it; what has less precision than float32 is taken for that."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).contiguous()


def moments(current: Tensor) -> Tensor:
    """Mean and biased variance of each channel of ``[F, C, ...]``, ``[2, C]``."""
    axes = [axis for axis in range(current.dim()) if axis != 1]
    variance, mean = torch.var_mean(current, axes, correction=0)
    return torch.stack([mean, variance])


def fire(current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: Layer) -> Tensor:
    """Spikes of ``current * scale + shift``, ``[T, B, C, ...]``, pooled where the layer says so.

    Scale and shift are ``[C]``, or None for the current itself.
    """
    spikes = [
        (potential >= layer.threshold).to(current.dtype)
        for potential in _potentials(current, scale, shift, layer)
    ]
    if layer.pooled:
        spikes = [functional.max_pool2d(train, 3, 2, 1) for train in spikes]
    return torch.stack(spikes)


def fire_backward(
    grad: Tensor,
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    centre: Tensor | None,
    layer: Layer,
) -> tuple[Tensor, Tensor]:
    """From the gradient of what :func:`fire` gives to that of ``current * scale + shift``.

    Returns:
        the gradient, like ``current``, and ``[C, 2]``: its sum over each channel, and its sum times
        ``current - centre``.
    """
    parts = []
    for t, potential in enumerate(_potentials(current, scale, shift, layer)):
        part = grad[t]
        if layer.pooled:
            part = _unpool(part, (potential >= layer.threshold).to(grad.dtype))
        sigmoid = torch.sigmoid(layer.slope * (potential - layer.threshold))
        # in the order in which the published code multiplies
        constants = layer.slope / layer.tau
        parts.append(part * sigmoid * (constants - constants * sigmoid))
    out = torch.stack(parts).sum(0) if layer.constant else torch.stack(parts)
    off = current if centre is None else current - _along(centre, current, layer)
    channel = 1 if layer.constant else 2
    axes = [axis for axis in range(out.dim()) if axis != channel]
    return out, torch.stack([out.sum(axes), (out * off).sum(axes)], dim=1)


def norm_backward(grad: Tensor, current: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
    """In place, on ``[F, C, ...]``: ``grad * a + current * b + c`` with one of each per channel."""
    shape = [1, -1, *(1 for _ in range(grad.dim() - 2))]
    grad.mul_(a.view(shape)).add_(current * b.view(shape)).add_(c.view(shape))


def _potentials(
    current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: Layer
) -> Iterator[Tensor]:
    """The potential of every step before it fires, ``[B, C, ...]``."""
    if scale is not None and shift is not None:
        current = current * _along(scale, current, layer) + _along(shift, current, layer)
    membrane = torch.zeros_like(current if layer.constant else current[0])
    for t in range(layer.steps):
        x = current if layer.constant else current[t]
        potential = membrane + (x - membrane) * (1.0 / layer.tau)
        yield potential
        membrane = potential.masked_fill(potential >= layer.threshold, 0.0)


def _along(values: Tensor, current: Tensor, layer: Layer) -> Tensor:
    """``[C]`` shaped to go with the channels of a current."""
    behind = current.dim() - (2 if layer.constant else 3)
    return values.view(-1, *(1 for _ in range(behind)))


def _unpool(grad: Tensor, spikes: Tensor) -> Tensor:
    """The gradient of max pooling: all of a window's goes to its winner."""
    _, places = functional.max_pool2d_with_indices(spikes, [3, 3], [2, 2], [1, 1])
    return torch.ops.aten.max_pool2d_with_indices_backward(  # type: ignore[no-any-return]
        grad, spikes, [3, 3], [2, 2], [1, 1], [1, 1], False, places
    )
