"""Kernels for GPUs, in Triton, on float32 and bfloat16; the arithmetic is in float32.

Currents, spikes and gradients lie in memory with the channels innermost (``memory_layout.py``).
The kernels allocate memory through torch and never wait for the GPU, so a CUDA graph can record
them. Products and sums are rounded one by one (no fused multiply-add), so the spikes are equal to
those of the reference to the bit. With ``TRITON_INTERPRET=1`` in the environment the kernels run on
a CPU, slowly, for tests.

The Triton functions are in ``gpu_neurons.py``, ``gpu_pooling.py`` and ``gpu_norm.py``. There,
``step`` is the number of neurons, ``between`` is the distance from one time step of the current to
the next, 0 for a constant current; ``a`` and ``b`` are scale and shift of a channel; ``statistics``
is what ``norm`` returns. Places in memory are 64-bit numbers. Triton specialises a kernel only for
the sizes that decide whether a thread may read several neighbours at once, so few variants are
compiled.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
import triton
from torch import Tensor

from avsnn.models.kernels import gpu_neurons, gpu_norm, gpu_pooling
from avsnn.models.kernels.memory_layout import arrange, empty, memory_order, spike_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from avsnn.models.kernels.layer_spec import LayerSpec

    P = ParamSpec("P")
    R = TypeVar("R")

NAME = "triton"
CHANNELS_INNERMOST = True

# Most programs of a kernel whose programs write partial sums, and of a kernel whose programs write
# counts. A GPU runs one to two thousand programs at a time, so the last programs leave little of
# the GPU idle, and partial sums are quickly added. As the numbers do not depend on the GPU, neither
# do the sums.
MAX_SUMS, MAX_COUNTS = 8192, 32768


def as_input(tensor: Tensor, channel: int | None = None) -> Tensor:
    """Return ``tensor`` as these kernels read memory (``memory_layout.py``).

    Args:
        tensor: current or gradient.
        channel: axis of the channels, or None for a tensor without channels.
    """
    return arrange(tensor, memory_order(tensor, channel))


def on_its_device(function: Callable[P, R]) -> Callable[P, R]:
    """Make the GPU of the first argument the current GPU, on which Triton launches kernels."""

    @wraps(function)
    def launch(*args: P.args, **kwargs: P.kwargs) -> R:
        first: Any = args[0]
        if first.device.type != "cuda" or first.device.index == torch.cuda.current_device():
            return function(*args, **kwargs)
        with torch.cuda.device(first.device):
            return function(*args, **kwargs)

    return launch


@on_its_device
def norm(current: Tensor, weight: Tensor, bias: Tensor, eps: float, layer: LayerSpec) -> Tensor:
    """Compute ``reference.norm``, in float32; sums of many values are in float64."""
    channels = current.shape[layer.channel]
    weight, bias = weight.contiguous(), bias.contiguous()
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


@on_its_device
def fire(
    current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: LayerSpec
) -> tuple[Tensor, Tensor]:
    """Compute ``reference.fire``."""
    channel = None if scale is None and not layer.pooled else layer.channel
    order = spike_order(memory_order(current, channel), constant=layer.constant)
    spikes = empty(current, layer.spike_shape(current), order)
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
    return spikes, add_counts(counts, step * layer.steps)


def add_counts(counts: Tensor, size: int) -> Tensor:
    """Return ``[2]`` int64: the sum of the counts of all programs, and ``size``."""
    both = counts.new_empty(2, dtype=torch.int64)
    gpu_norm.finish_count[(1,)](
        counts, both, counts.numel(), size, BLOCK=gpu_norm.COUNTS, num_warps=8
    )
    return both


@on_its_device
def current_gradient(grad: Tensor, current: Tensor, layer: LayerSpec) -> Tensor:
    """Compute ``reference.current_gradient``."""
    order = memory_order(current, layer.channel if layer.pooled else None)
    grad = arrange(grad, spike_order(order, constant=layer.constant))
    out = empty(current, current.shape, order)
    if layer.pooled:
        winners, _ = _sum_pooled_gradients(grad, current, None, layer)
        _write_pooled_gradients(grad, current, None, winners, None, out, layer)
    else:
        _write_gradients(grad, current, None, None, out, layer)
    return out


@on_its_device
def norm_fire_backward(
    grad: Tensor, current: Tensor, statistics: Tensor, eps: float, layer: LayerSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``reference.norm_fire_backward`` in two passes over the current.

    Pass 1 adds up, for each channel, what batch norm needs. Pass 2 computes the potentials again
    and writes the gradient of the current.
    """
    channels = statistics.shape[1]
    out = empty(current, current.shape, memory_order(current, layer.channel))
    if layer.pooled:
        winners, sums = _sum_pooled_gradients(grad, current, statistics, layer)
    else:
        sums = _sum_gradients(grad, current, statistics, layer)
    factors = current.new_empty((3, channels), dtype=torch.float32)
    grad_weight, grad_bias = statistics.new_empty((2, channels)).unbind()
    gpu_norm.finish_gradients[(channels,)](
        sums, statistics, factors, grad_weight, grad_bias, current.numel() // channels,
        sums.shape[2], channels, eps, BLOCK=gpu_norm.BLOCK,
    )  # fmt: skip
    if layer.pooled:
        _write_pooled_gradients(grad, current, statistics, winners, factors, out, layer)
    else:
        _write_gradients(grad, current, statistics, factors, out, layer)
    return out, grad_weight, grad_bias


@on_its_device
def move_statistics(
    running_mean: Tensor,
    running_variance: Tensor,
    batches: Tensor,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    unbiased: float,
) -> None:
    """Compute ``reference.move_statistics``."""
    block = gpu_norm.CHANNELS
    gpu_norm.move_statistics[(triton.cdiv(len(mean), block),)](
        running_mean, running_variance, batches, mean, variance, momentum, unbiased, len(mean),
        BLOCK=block, enable_fp_fusion=False,
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
