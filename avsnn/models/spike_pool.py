"""Neurons and the max pooling behind them as one operation, which forgets what pooling discards.

A pooled spike depends on one neuron of its window, and so does its gradient. Only the potentials of
these winners are kept for the backward pass, a quarter of all; the spikes before pooling exist for
one time step at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from avsnn.models.neuron import NeuronConstants, charge, slabs, times_surrogate

if TYPE_CHECKING:
    from avsnn.models.neuron import LIF

_KERNEL, _STRIDE, _PADDING = [3, 3], [2, 2], [1, 1]


def _step(current: Tensor, negated: Tensor, spikes: Tensor, neuron: NeuronConstants) -> None:
    """One time step, in place: ``negated`` holds ``-v[t-1]`` and then ``-h[t]``."""
    work = (tensor.unsqueeze(0) for tensor in (current, negated, spikes))
    for x, h, s in slabs(*work):
        kept = torch.threshold(h[0], -neuron.threshold, 0.0)
        charge(x[0], kept, neuron, h[0])
        torch.le(h[0], -neuron.threshold, out=s[0])


class _FireAndPool(torch.autograd.Function):
    """Saves, of the pooled size, the winners' negated potentials and places (int32)."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, steps: int | None, neuron: NeuronConstants) -> Tensor:
        current = current.contiguous()
        frames = current.shape if steps else current.shape[1:]
        negated, spikes = current.new_zeros(frames), current.new_empty(frames)
        learns = ctx.needs_input_grad[0]
        pooled: list[Tensor] = []
        winners: list[Tensor] = []
        places: list[Tensor] = []
        for t in range(steps or current.shape[0]):
            _step(current if steps else current[t], negated, spikes, neuron)
            out, place = functional.max_pool2d_with_indices(spikes, _KERNEL, _STRIDE, _PADDING)
            pooled.append(out)
            if learns:
                winner = negated.flatten(2).gather(2, place.flatten(2))
                winners.append(winner.view_as(out))
                places.append(place.int())
        if learns:
            ctx.save_for_backward(torch.stack(winners), torch.stack(places))
            ctx.neuron, ctx.frames, ctx.constant = neuron, frames, bool(steps)
        return torch.stack(pooled)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        winners, places = ctx.saved_tensors
        share = torch.empty_like(winners)
        for g, h, out in slabs(grad.contiguous(), winners, share):
            for t in range(g.shape[0]):
                times_surrogate(g[t], h[t], ctx.neuron, out[t])
        like = winners.new_empty(ctx.frames)

        def spread(t: int, out: Tensor) -> Tensor:
            """Give every winner what its windows send back."""
            torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
                share[t],
                like,
                _KERNEL,
                _STRIDE,
                _PADDING,
                [1, 1],
                False,
                places[t].long(),
                grad_input=out,
            )
            return out

        if ctx.constant:
            total = spread(0, torch.empty_like(like))
            for t in range(1, len(share)):
                total.add_(spread(t, like))
            return total, None, None
        out = winners.new_empty((len(share), *ctx.frames))
        for t in range(len(share)):
            spread(t, out[t])
        return out, None, None


def fire_and_pool(lif: LIF, current: Tensor, steps: int | None = None) -> Tensor:
    """Spikes of ``lif``, then 3x3 max pooling with stride 2 over each frame.

    Where the spikes themselves are looked at, gradients flow through time, or the neuron is not the
    published one, the layer is called and pooled like any other; the result is the same.

    Args:
        lif: the layer.
        current: ``[T, B, C, H, W]``, or ``[B, C, H, W]`` with ``steps``.
        steps: T of a constant current.

    Returns:
        ``[T, B, C, ceil(H / 2), ceil(W / 2)]``. Saved for backward: 8 bytes for each of its values;
        in the cases named, what the layer saves, its spikes, and the places of the winners.
    """
    if lif.watched or not (lif.detach_membrane and lif.constants.has_operation):
        spikes = lif(current, steps)
        pooled = functional.max_pool2d(spikes.flatten(0, 1), _KERNEL, _STRIDE, _PADDING)
        return pooled.view(*spikes.shape[:2], *pooled.shape[1:])
    out: Tensor = _fire_and_pool(current, steps, lif.constants)
    return out


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _fire_and_pool(current: Tensor, steps: int | None, neuron: NeuronConstants) -> Tensor:
    """One operation to a compiler, as ``neuron._fire`` is."""
    return _FireAndPool.apply(current, steps, neuron)  # type: ignore[no-any-return, no-untyped-call]
