"""Triton functions of the arithmetic that is done once for each channel, and of sums and counts.

Sums are taken in two steps: many programs write partial sums, and one program for each channel adds
the partial sums in a fixed order, in float64. So results do not depend on which program ends first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from avsnn.models.kernels.gpu_neurons import by_channel, store_sums

# Rows and channels of one tile of `sum_moments`, and partial sums that are added at once.
ROWS, COLUMNS, BLOCK = 32, 32, 1024

# Counts that are added at once; there are more counts than partial sums of a channel.
COUNTS = 4096

# Channels of one program of `move_statistics`.
CHANNELS = 256


@triton.jit(do_not_specialize=["rows", "tiles", "splits"])
def sum_moments(x, sums, rows, tiles, splits, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Write the sums of ``x`` and of its square for each channel to ``sums`` [2, C, splits].

    The first value of a channel is subtracted before, so that no digits are lost if all values are
    far from 0. Programs of one split take every ``splits``-th tile of ``rows`` times ``channels``.
    """
    block, split = tl.program_id(0), tl.program_id(1)
    channel = block * COLUMNS + tl.arange(0, COLUMNS)
    middle = by_channel(x, channel, channels)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    square = tl.zeros([ROWS, COLUMNS], tl.float32)
    for tile in range(split, tiles, splits):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (channel < channels)[None, :]
        i = row[:, None] * channels + channel[None, :]
        off = tl.load(x + i, mask=inside, other=0.0).to(tl.float32) - middle
        off = tl.where(inside, off, 0.0)
        total += off
        square += off * off
    store_sums(sums, total, square, channel, channels, split, splits)


@triton.jit
def add_splits(sums, channel, channels, splits, BLOCK: tl.constexpr):
    """Return both sums of one channel, from the partial sums [2, C, splits]."""
    first, second = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for start in range(0, splits, BLOCK):
        i = start + tl.arange(0, BLOCK)
        at = sums + channel * splits + i
        first += tl.load(at, mask=i < splits, other=0.0)
        second += tl.load(at + channels * splits, mask=i < splits, other=0.0)
    return tl.sum(first), tl.sum(second)


@triton.jit(do_not_specialize=["count", "splits", "channels"])
def finish_moments(
    sums, x, weight, bias, statistics, count, splits, channels, eps, BLOCK: tl.constexpr
):
    """Write mean, biased variance, scale and shift of one channel to ``statistics`` [4, C]."""
    channel = tl.program_id(0)
    total, square = add_splits(sums, channel, channels, splits, BLOCK)
    off = total / count
    # Rounding can make the difference slightly negative.
    variance = tl.maximum(square / count - off * off, 0.0).to(tl.float32)
    mean = (tl.load(x + channel).to(tl.float64) + off).to(tl.float32)
    scale = tl.load(weight + channel).to(tl.float64) / tl.sqrt(variance.to(tl.float64) + eps)
    shift = tl.load(bias + channel).to(tl.float64) - mean.to(tl.float64) * scale
    at = statistics + channel
    tl.store(at, mean)
    tl.store(at + channels, variance)
    tl.store(at + 2 * channels, scale.to(tl.float32))
    tl.store(at + 3 * channels, shift.to(tl.float32))


@triton.jit(do_not_specialize=["count", "splits", "channels"])
def finish_gradients(
    sums, statistics, factors, grad_weight, grad_bias, count, splits, channels, eps,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradients of weight and bias of one channel, and its ``factors`` [3, C].

    The factors by, of and more turn d, the gradient of the normalised current, into the gradient of
    the current, ``d * by + x * of + more``. The latter is the gradient of batch norm,
    ``scale * (d - mean(d) - x_hat * mean(d * x_hat))``.
    """
    channel = tl.program_id(0)
    total, product = add_splits(sums, channel, channels, splits, BLOCK)
    mean = tl.load(statistics + channel).to(tl.float64)
    inverse = 1.0 / tl.sqrt(tl.load(statistics + channels + channel).to(tl.float64) + eps)
    scale = tl.load(statistics + 2 * channels + channel).to(tl.float64)
    slant = product / count * inverse * inverse
    more = scale * (mean * slant - total / count)
    tl.store(factors + channel, scale.to(tl.float32))
    tl.store(factors + channels + channel, (-scale * slant).to(tl.float32))
    tl.store(factors + 2 * channels + channel, more.to(tl.float32))
    tl.store(grad_weight + channel, (product * inverse).to(tl.float32))
    tl.store(grad_bias + channel, total.to(tl.float32))


@triton.jit(do_not_specialize=["channels"])
def move_statistics(
    running_mean, running_variance, batches, mean, variance, momentum, unbiased, channels,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Move running statistics towards the statistics of a batch, and count the batch."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < channels
    now = tl.load(mean + i, mask=inside)
    move(running_mean + i, now, momentum, inside)
    now = tl.load(variance + i, mask=inside) * unbiased
    move(running_variance + i, now, momentum, inside)
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)


@triton.jit
def move(values, now, momentum, inside):
    """Move ``values`` towards ``now`` by the share ``momentum``."""
    before = tl.load(values, mask=inside).to(tl.float32)
    after = before + (now - before) * momentum
    tl.store(values, after.to(values.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["size", "programs"])
def finish_count(counts, out, programs, size, BLOCK: tl.constexpr):
    """Write the sum of ``counts`` and the number of values to ``out`` [2]."""
    total = tl.zeros([BLOCK], tl.int64)
    for start in range(0, programs, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.load(counts + i, mask=i < programs, other=0)
    tl.store(out, tl.sum(total))
    tl.store(out + 1, size)
