"""How the axes of currents, spikes and gradients lie in memory.

Kernels for GPUs read and write channels innermost: ``[T, B, C, H, W]`` lies in memory as
``[T, B, H, W, C]``. A current without channels may have its axes in any order behind the first
axis, and its spikes and gradients have the same order. An *order* is the list of the axes, from the
outermost to the innermost in memory. The stride of an axis of size 1 does not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor


def memory_order(current: Tensor, channel: int | None) -> list[int]:
    """Return the order in which kernels for GPUs read a current.

    Args:
        current: ``[T, B, C, ...]`` or ``[B, C, ...]``; any shape without channels.
        channel: axis of the channels, or None for a current without channels.
    """
    axes = range(current.dim())
    if channel is None:
        return sorted(axes, key=lambda axis: (axis > 0, -current.stride()[axis]))
    return [*(axis for axis in axes if axis != channel), channel]


def spike_order(order: Sequence[int], *, constant: bool) -> list[int]:
    """Return the order of spikes, time steps outermost, from the order of their current."""
    return [0, *(axis + 1 for axis in order)] if constant else list(order)


def arrange(tensor: Tensor, order: Sequence[int]) -> Tensor:
    """Return ``tensor`` in this order, without a copy if the tensor has this order already."""
    return tensor.permute(list(order)).contiguous().permute(_inverse(order))


def empty(
    like: Tensor, shape: Sequence[int], order: Sequence[int], dtype: torch.dtype | None = None
) -> Tensor:
    """Return memory for a tensor of this shape in this order, with the device of ``like``.

    Args:
        like: tensor that gives the device, and the dtype if ``dtype`` is None.
        shape: shape of the tensor.
        order: order of the tensor.
        dtype: dtype of the tensor.
    """
    memory = like.new_empty([shape[axis] for axis in order], dtype=dtype or like.dtype)
    return memory.permute(_inverse(order))


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)
