"""Kernels for GPUs, in Triton, on float32 and bfloat16; the arithmetic is in float32.

A current ``[T, B, C, ...]`` or ``[B, C, ...]`` lies in memory with the channels innermost, as
``[T, B, ..., C]`` or ``[B, ..., C]``, and so do spikes and gradients. A current without channels may
have its axes in any order behind the first one, and its spikes and gradients have the same order.

The kernels allocate memory through torch and never wait for the GPU, so a CUDA graph can record
them. Products and sums are rounded one by one (no fused multiply-add), so the spikes are equal to
those of the reference to the bit. With ``TRITON_INTERPRET=1`` in the environment the kernels run on
a CPU, slowly, for tests.

The Triton functions are in ``gpu_neurons.py``, ``gpu_pooling.py`` and ``gpu_norm.py``. There,
``step`` is the number of neurons, ``between`` is the distance from one time step of the current to
the next, 0 for a constant current; ``a`` and ``b`` are scale and shift of a channel; ``statistics``
is what ``norm`` returns. Places in memory are 64-bit numbers. Sizes are not specialised, apart from
those that decide whether a thread may read several neighbours at once, so few variants are compiled.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
import triton
from torch import Tensor

from avsnn.models.kernels import gpu_neurons, gpu_norm, gpu_pooling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from avsnn.models.kernels.layer_spec import LayerSpec

    P = ParamSpec("P")
    R = TypeVar("R")

NAME = "triton"

# Most programs of a kernel whose programs write partial sums, and of a kernel whose programs write
# counts. A GPU runs one to two thousand programs at a time, so the last ones leave little of the GPU
# idle, and the partial sums are quickly added. The numbers are the same on every GPU, so sums are too.
MAX_SUMS, MAX_COUNTS = 8192, 32768


def memory_order(tensor: Tensor, channel: int | None) -> list[int]:
    """Return the axes of a current in the order in which they lie in memory, the innermost last.

    Args:
        tensor: the current.
        channel: axis of the channels, or None for a current without channels.
    """
    axes = range(tensor.dim())
    if channel is not None:
        return [axis for axis in axes if axis != channel] + [channel]
    return sorted(axes, key=lambda axis: (axis > 0, -tensor.stride(axis)))


def as_input(tensor: Tensor, channel: int | None = None) -> Tensor:
    """Return ``tensor`` as these kernels read memory; no copy if it already lies there like that.

    Args:
        tensor: current or gradient.
        channel: axis of the channels, or None for a tensor without channels.
    """
    order = memory_order(tensor, channel)
    return tensor.permute(order).contiguous().permute(_inverse(order))


def empty_spikes(current: Tensor, channel: int | None, layer: LayerSpec) -> Tensor:
    """Return memory for the spikes of ``current``."""
    order = memory_order(current, channel)
    return _empty(current, layer.spike_shape(current), _behind_time(order, layer))


def empty_gradient(current: Tensor, channel: int | None) -> Tensor:
    """Return memory for the gradient of ``current``."""
    return _empty(current, current.shape, memory_order(current, channel))


def _empty(like: Tensor, shape: Sequence[int], order: list[int]) -> Tensor:
    return like.new_empty([shape[axis] for axis in order]).permute(_inverse(order))


def _behind_time(order: list[int], layer: LayerSpec) -> list[int]:
    """Return the order of the spikes of a current that lies in memory in ``order``."""
    return [0, *(axis + 1 for axis in order)] if layer.constant else order


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _on_its_device(function: Callable[P, R]) -> Callable[P, R]:
    """Make the GPU of the first argument the current GPU, on which Triton launches kernels."""

    @wraps(function)
    def launch(*args: P.args, **kwargs: P.kwargs) -> R:
        first: Any = args[0]
        if first.device.type != "cuda" or first.device.index == torch.cuda.current_device():
            return function(*args, **kwargs)
        with torch.cuda.device(first.device):
            return function(*args, **kwargs)

    return launch


@_on_its_device
def norm(current: Tensor, weight: Tensor, bias: Tensor, eps: float, layer: LayerSpec) -> Tensor:
    """Compute ``reference.norm``, in float32; sums of many values are in float64."""
    channels = current.shape[layer.channel]
    count = current.numel() // channels
    tiles, splits, blocks = _split(count, channels, gpu_norm.ROWS, MAX_SUMS)
    sums = current.new_empty((2, channels, splits), dtype=torch.float32)
    gpu_norm.sum_moments[(blocks, splits)](
        current, sums, count, tiles, splits, channels, ROWS=gpu_norm.ROWS, COLUMNS=gpu_norm.COLUMNS
    )
    statistics = current.new_empty((4, channels), dtype=torch.float32)
    gpu_norm.finish_moments[(channels,)](
        sums, current, weight, bias, statistics, count, splits, channels, eps, BLOCK=gpu_norm.BLOCK
    )
    return statistics


@_on_its_device
def fire(
    current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: LayerSpec
) -> tuple[Tensor, Tensor]:
    """Compute ``reference.fire``."""
    channel = None if scale is None and not layer.pooled else layer.channel
    spikes = empty_spikes(current, channel, layer)
    step, between = _distances(current, layer)
    channels = gpu_neurons.COLUMNS if channel is None else current.shape[channel]
    rows, columns = gpu_neurons.ROWS, gpu_neurons.COLUMNS
    tiles, splits, blocks = _split(triton.cdiv(step, channels), channels, rows, MAX_COUNTS)
    counts = current.new_empty(splits * blocks, dtype=torch.int32)
    per_byte = gpu_neurons.STEPS_PER_BYTE
    out = spikes
    if layer.pooled:
        out = current.new_empty(triton.cdiv(layer.steps, per_byte) * step, dtype=torch.uint8)
    gpu_neurons.fire_tiles[(blocks, splits)](
        current, scale, shift, out, counts, layer.steps, between, step, tiles, splits, channels,
        1.0 / layer.tau, layer.threshold, SCALED=scale is not None, PACKED=layer.pooled,
        STEPS=per_byte, ROWS=rows, COLUMNS=columns, enable_fp_fusion=False,
    )  # fmt: skip
    if layer.pooled:
        windows, sizes = _windows(current, layer)
        grid = triton.cdiv(windows, gpu_pooling.POOL_ROWS) * blocks
        gpu_pooling.pool_bytes[(grid,)](
            out, spikes, layer.steps, step, windows * channels, windows, channels, *sizes,
            STEPS=per_byte, ROWS=gpu_pooling.POOL_ROWS, COLUMNS=gpu_pooling.COLUMNS,
        )  # fmt: skip
    count = current.new_empty(2, dtype=torch.int64)
    gpu_norm.finish_count[(1,)](
        counts, count, len(counts), step * layer.steps, BLOCK=gpu_norm.COUNTS, num_warps=8
    )
    return spikes, count


@_on_its_device
def fire_backward(grad: Tensor, current: Tensor, layer: LayerSpec) -> Tensor:
    """Compute ``reference.fire_backward`` without scale and shift."""
    channel = layer.channel if layer.pooled else None
    order = _behind_time(memory_order(current, channel), layer)
    grad = grad.permute(order).contiguous()
    out = empty_gradient(current, channel)
    if layer.pooled:
        winners, _ = _sum_pooled_gradients(grad, current, None, layer)
        _write_pooled_gradients(grad, current, None, winners, None, out, layer)
    else:
        _write_gradients(grad, current, None, None, out, layer)
    return out


@_on_its_device
def norm_fire_backward(
    grad: Tensor,
    current: Tensor,
    weight: Tensor,
    statistics: Tensor,
    eps: float,
    layer: LayerSpec,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``reference.norm_fire_backward`` in two passes over the current.

    Pass 1 adds up, for each channel, what batch norm needs. Pass 2 computes the potentials again
    and writes the gradient of the current.
    """
    channels = len(weight)
    out = empty_gradient(current, layer.channel)
    if layer.pooled:
        winners, sums = _sum_pooled_gradients(grad, current, statistics, layer)
    else:
        sums = _sum_gradients(grad, current, statistics, layer)
    factors = current.new_empty((3, channels), dtype=torch.float32)
    grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(weight)
    gpu_norm.finish_gradients[(channels,)](
        sums, statistics, weight, factors, grad_weight, grad_bias, current.numel() // channels,
        sums.shape[2], channels, eps, BLOCK=gpu_norm.BLOCK,
    )  # fmt: skip
    if layer.pooled:
        _write_pooled_gradients(grad, current, statistics, winners, factors, out, layer)
    else:
        _write_gradients(grad, current, statistics, factors, out, layer)
    return out, grad_weight, grad_bias


@_on_its_device
def move_statistics(
    statistics: Tensor,
    mean: Tensor,
    variance: Tensor,
    batches: Tensor,
    momentum: float,
    unbiased: float,
) -> None:
    """Compute ``reference.move_statistics`` in place."""
    block = 256
    gpu_norm.move_statistics[(triton.cdiv(len(mean), block),)](
        statistics, mean, variance, batches, momentum, unbiased, len(mean), BLOCK=block,
        enable_fp_fusion=False,
    )  # fmt: skip


def _sum_gradients(grad: Tensor, current: Tensor, statistics: Tensor, layer: LayerSpec) -> Tensor:
    step, between = _distances(current, layer)
    channels = statistics.shape[1]
    rows = gpu_neurons.ROWS
    tiles, splits, blocks = _split(step // channels, channels, rows, MAX_SUMS)
    sums = statistics.new_empty((2, channels, splits))
    gpu_neurons.sum_gradients[(blocks, splits)](
        grad, current, statistics, sums, layer.steps, between, step, tiles, splits, channels,
        *_constants(layer), ROWS=rows, COLUMNS=gpu_neurons.COLUMNS, enable_fp_fusion=False,
    )  # fmt: skip
    return sums


def _write_gradients(
    grad: Tensor,
    current: Tensor,
    statistics: Tensor | None,
    factors: Tensor | None,
    out: Tensor,
    layer: LayerSpec,
) -> None:
    step, between = _distances(current, layer)
    channels = gpu_neurons.COLUMNS if statistics is None else statistics.shape[1]
    rows, columns = gpu_neurons.ROWS, gpu_neurons.COLUMNS
    programs = triton.cdiv(triton.cdiv(step, channels), rows) * triton.cdiv(channels, columns)
    gpu_neurons.write_gradients[(programs,)](
        grad, current, statistics, factors, out, layer.steps, between, step, channels,
        *_constants(layer), NORM=statistics is not None, CONSTANT=layer.constant, ROWS=rows,
        COLUMNS=columns, enable_fp_fusion=False,
    )  # fmt: skip


def _sum_pooled_gradients(
    grad: Tensor, current: Tensor, statistics: Tensor | None, layer: LayerSpec
) -> tuple[Tensor, Tensor]:
    """Return the winner of each window at each step, and the sums of ``_sum_gradients``."""
    _, between = _distances(current, layer)
    channels = current.shape[layer.channel]
    windows, sizes = _windows(current, layer)
    rows = gpu_pooling.ROWS
    tiles, splits, blocks = _split(windows, channels, rows, MAX_SUMS)
    winners = current.new_empty(layer.steps * windows * channels, dtype=torch.int8)
    sums = current.new_empty((2, channels, splits), dtype=torch.float32)
    gpu_pooling.sum_pooled_gradients[(blocks, splits)](
        grad, current, statistics, winners, sums, layer.steps, between, windows * channels, tiles,
        splits, windows, channels, *sizes, *_constants(layer), NORM=statistics is not None,
        ROWS=rows, COLUMNS=gpu_pooling.COLUMNS, enable_fp_fusion=False,
    )  # fmt: skip
    return winners, sums


def _write_pooled_gradients(
    grad: Tensor,
    current: Tensor,
    statistics: Tensor | None,
    winners: Tensor,
    factors: Tensor | None,
    out: Tensor,
    layer: LayerSpec,
) -> None:
    _, between = _distances(current, layer)
    channels = current.shape[layer.channel]
    windows, sizes = _windows(current, layer)
    rows, columns = gpu_pooling.ROWS, gpu_pooling.COLUMNS
    programs = triton.cdiv(windows, rows) * triton.cdiv(channels, columns)
    gpu_pooling.write_pooled_gradients[(programs,)](
        grad, current, statistics, winners, factors, out, layer.steps, between, windows * channels,
        windows, channels, *sizes, *_constants(layer), NORM=statistics is not None,
        CONSTANT=layer.constant, ROWS=rows, COLUMNS=columns, enable_fp_fusion=False,
    )  # fmt: skip


def _constants(layer: LayerSpec) -> tuple[float, float, float]:
    return 1.0 / layer.tau, layer.threshold, layer.slope


def _distances(current: Tensor, layer: LayerSpec) -> tuple[int, int]:
    """Return ``step`` and ``between``."""
    if layer.constant:
        return current.numel(), 0
    step = current.numel() // layer.steps
    return step, step


def _split(rows: int, channels: int, tile: int, most: int) -> tuple[int, int, int]:
    """Return the tiles of ``rows``, how many programs share them, and the blocks of channels.

    Args:
        rows: number of rows of ``channels`` values each.
        channels: C.
        tile: rows of a tile.
        most: most programs for all channels together.
    """
    tiles, blocks = triton.cdiv(rows, tile), triton.cdiv(channels, gpu_neurons.COLUMNS)
    return tiles, max(1, min(tiles, most // blocks)), blocks


def _windows(current: Tensor, layer: LayerSpec) -> tuple[int, tuple[int, int, int, int]]:
    """Return the number of windows of all clips, and the sides of an image and of its windows.

    Raises:
        ValueError: the images have so many pixels that their number has more than 31 bits.
    """
    batch, _, height, width = layer.frame_shape(current)
    if batch * height * width >= 2**31:
        raise ValueError(
            f"{batch} images of {height} x {width} pixels are too many for one batch on a GPU."
        )
    high, wide = (height + 1) // 2, (width + 1) // 2
    return batch * high * wide, (height, width, high, wide)
