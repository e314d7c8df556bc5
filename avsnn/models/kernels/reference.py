"""The reference: what every kernel computes, in plain torch, on any device and in any precision.

The tests compare the other kernels with these functions: spikes must be equal to the bit, gradients
up to rounding. A current is ``[T, B, C, ...]``, or ``[B, C, ...]`` if the layer is constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from avsnn.models.kernels.layer_spec import LayerSpec


NAME = "torch"


def as_input(tensor: Tensor) -> Tensor:
    """Return ``tensor`` contiguous and in float32, or in its own dtype if that is more precise."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).contiguous()


def moments(current: Tensor) -> Tensor:
    """Return mean and biased variance of each channel of ``[F, C, ...]``, as ``[2, C]``."""
    axes = [axis for axis in range(current.dim()) if axis != 1]
    variance, mean = torch.var_mean(current, axes, correction=0)
    return torch.stack([mean, variance])


def fire(
    current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: LayerSpec
) -> tuple[Tensor, Tensor]:
    """Return the spikes of ``current * scale + shift``, pooled if the layer is pooled.

    Args:
        current: ``[T, B, C, ...]``, or ``[B, C, ...]`` if the layer is constant; without ``scale``
            and pooling, any ``[T, ...]`` or ``[...]``.
        scale: ``[C]``, or None to take ``current`` as it is.
        shift: ``[C]`` with ``scale``, otherwise None.
        layer: constants of the neurons.

    Returns:
        spikes ``[T, B, C, ...]``; and ``[2]`` int64: the number of spikes before pooling, and the
        number of neurons times time steps, which is the most there could be.
    """
    spikes = [
        (potential >= layer.threshold).to(current.dtype)
        for potential in _potentials(current, scale, shift, layer)
    ]
    count = torch.stack([count_spikes(train) for train in spikes]).sum(0)
    if layer.pooled:
        spikes = [functional.max_pool2d(train, 3, 2, 1) for train in spikes]
    return torch.stack(spikes), count


def count_spikes(spikes: Tensor) -> Tensor:
    """Return ``[2]`` int64: the number of spikes, and the number of values."""
    fired = spikes.count_nonzero()
    return torch.stack([fired, torch.full_like(fired, spikes.numel())])


def fire_backward(
    grad: Tensor,
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    centre: Tensor | None,
    layer: LayerSpec,
) -> tuple[Tensor, Tensor]:
    """Return the gradient of ``current * scale + shift`` from the gradient of the spikes.

    Args:
        grad: gradient of the output of ``fire``.
        current: as for ``fire``.
        scale: as for ``fire``.
        shift: as for ``fire``.
        centre: ``[C]``, or None for 0.
        layer: as for ``fire``.

    Returns:
        the gradient, with the shape of ``current``; and ``[C, 2]``: for each channel, the sum of
        the gradient, and the sum of the gradient times ``current - centre``. Nobody may read the
        second result for a current that has no axis of channels.
    """
    parts = []
    for t, potential in enumerate(_potentials(current, scale, shift, layer)):
        part = grad[t]
        if layer.pooled:
            part = _unpool(part, (potential >= layer.threshold).to(grad.dtype))
        sigmoid = torch.sigmoid(layer.slope * (potential - layer.threshold))
        # The published code multiplies in this order, and the order decides how a product is
        # rounded.
        constants = layer.slope / layer.tau
        parts.append(part * sigmoid * (constants - constants * sigmoid))
    out = torch.stack(parts).sum(0) if layer.constant else torch.stack(parts)
    channel = 1 if layer.constant else 2
    if out.dim() <= channel:
        return out, out.new_empty((0, 2))
    off = current if centre is None else current - _along(centre, current, layer)
    axes = [axis for axis in range(out.dim()) if axis != channel]
    return out, torch.stack([out.sum(axes), (out * off).sum(axes)], dim=1)


def norm_backward(grad: Tensor, current: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
    """Replace ``grad`` by ``grad * a + current * b + c``: what batch norm does to a gradient.

    Args:
        grad: ``[F, C, ...]``; changed in place.
        current: ``[F, C, ...]``.
        a: factor of ``grad`` for each channel, ``[C]``.
        b: factor of ``current`` for each channel, ``[C]``.
        c: constant of each channel, ``[C]``.
    """
    shape = [1, -1, *(1 for _ in range(grad.dim() - 2))]
    grad.mul_(a.view(shape)).add_(current * b.view(shape)).add_(c.view(shape))


def _potentials(
    current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: LayerSpec
) -> Iterator[Tensor]:
    """Yield the membrane potential of every step before the neurons fire, ``[B, C, ...]``."""
    if scale is not None and shift is not None:
        current = current * _along(scale, current, layer) + _along(shift, current, layer)
    membrane = torch.zeros_like(current if layer.constant else current[0])
    for t in range(layer.steps):
        x = current if layer.constant else current[t]
        potential = membrane + (x - membrane) * (1.0 / layer.tau)
        yield potential
        membrane = potential.masked_fill(potential >= layer.threshold, 0.0)


def _along(values: Tensor, current: Tensor, layer: LayerSpec) -> Tensor:
    """Reshape ``[C]`` so that it broadcasts along the channels of ``current``."""
    behind = current.dim() - (2 if layer.constant else 3)
    return values.view(-1, *(1 for _ in range(behind)))


def _unpool(grad: Tensor, spikes: Tensor) -> Tensor:
    """Return the gradient of max pooling: the winner of a window gets the window's gradient."""
    _, places = functional.max_pool2d_with_indices(spikes, [3, 3], [2, 2], [1, 1])
    return torch.ops.aten.max_pool2d_with_indices_backward(  # type: ignore[no-any-return]
        grad, spikes, [3, 3], [2, 2], [1, 1], [1, 1], False, places
    )
