"""Triton functions of the neurons: spikes, and gradients of the currents.

One program computes a tile of ROWS times COLUMNS neurons over all steps, so the membrane potentials
stay in registers. ``gpu.py`` says how tensors lie in memory and what the names mean.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Sizes of a tile of neurons. 32 channels are one line of 128 bytes in float32, and each thread has
# four neighbours, which the thread reads with one instruction.
ROWS, COLUMNS = 16, 32

# Time steps whose spikes share a byte.
STEPS_PER_BYTE = 8


@triton.jit
def charge(current, a, b, membrane, rate):
    """Return the potential before firing, from the potential after the step before."""
    return membrane + (current * a + b - membrane) * rate


@triton.jit
def derivative(potential, rate, threshold, slope):
    """Return the derivative of the surrogate, times the rate.

    The function is even in ``potential - threshold``.
    """
    e = tl.exp(-tl.abs(slope * (potential - threshold)))
    return slope * rate * e / ((1.0 + e) * (1.0 + e))


@triton.jit
def gradient_of(x, d, inside, a, b, membrane, rate, threshold, slope):
    """Return the current, its gradient from ``d``, and the potential after the step.

    ``d`` is the gradient of the spikes; the gradient is that of the normalised current.
    """
    current = tl.load(x, mask=inside, other=0.0).to(tl.float32)
    h = charge(current, a, b, membrane, rate)
    return current, d * derivative(h, rate, threshold, slope), tl.where(h >= threshold, 0.0, h)


@triton.jit
def by_channel(table, channel, channels):
    """Return the values of ``table``, one for each channel, as a row."""
    return tl.load(table + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]


@triton.jit
def tile_of(channel, tile, step, channels, ROWS: tl.constexpr):
    """Return the places of one tile of neurons, and which places are in a step."""
    row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
    i = row[:, None] * channels + channel[None, :]
    return i, (channel < channels)[None, :] & (i < step)


@triton.jit(do_not_specialize=["steps", "tiles", "splits"])
def fire_tiles(
    x, scale, shift, out, counts, steps, between, step, tiles, splits, channels, rate, threshold,
    SCALED: tl.constexpr, PACKED: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write spikes to ``out``, and the number of spikes of each program to ``counts``.

    PACKED writes the spikes of eight steps into one byte, the first step into the lowest bit.
    Programs of one split take every ``splits``-th tile.
    """
    block, split = tl.program_id(0), tl.program_id(1)
    channel = block * COLUMNS + tl.arange(0, COLUMNS)
    a, b = 1.0, 0.0
    if SCALED:
        a, b = by_channel(scale, channel, channels), by_channel(shift, channel, channels)
    total = tl.zeros([ROWS, COLUMNS], tl.int32)
    for tile in range(split, tiles, splits):
        i, inside = tile_of(channel, tile, step, channels, ROWS)
        source, target = x, out
        membrane = tl.zeros([ROWS, COLUMNS], tl.float32)
        # Each step starts to read the current of the next one, so that more bytes are on their way.
        coming = tl.load(source + i, mask=inside, other=0.0)
        for first in range(0, steps, STEPS):
            bits = tl.zeros([ROWS, COLUMNS], tl.int32)
            for t in range(tl.minimum(STEPS, steps - first)):
                current = coming.to(tl.float32)
                source += between
                more = tl.full([1, 1], first + t + 1, tl.int32) < steps
                coming = tl.load(source + i, mask=inside & more, other=0.0)
                h = charge(current, a, b, membrane, rate)
                fires = h >= threshold
                membrane = tl.where(fires, 0.0, h)
                spikes = (fires & inside).to(tl.int32)
                total += spikes
                if PACKED:
                    bits |= spikes << t
                else:
                    values = tl.where(fires, 1.0, 0.0).to(out.dtype.element_ty)
                    tl.store(target + i, values, mask=inside)
                    target += step
            if PACKED:
                tl.store(target + i, bits.to(tl.uint8), mask=inside)
                target += step
    tl.store(counts + split * tl.num_programs(0) + block, tl.sum(total))


@triton.jit(do_not_specialize=["steps", "tiles", "splits"])
def sum_gradients(
    grad, x, statistics, sums, steps, between, step, tiles, splits, channels, rate, threshold,
    slope, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write two sums for each channel to ``sums`` [2, C, splits].

    The first sum is over the gradient of the normalised current, the second over this gradient
    times ``x - mean``. This is pass 1 of the backward pass through batch norm. It reads 32 N bytes
    for N currents of four bytes at each of T = 4 steps; pass 2, ``write_gradients``, moves 48 N.
    """
    block, split = tl.program_id(0), tl.program_id(1)
    channel = block * COLUMNS + tl.arange(0, COLUMNS)
    middle = by_channel(statistics, channel, channels)
    a = by_channel(statistics + 2 * channels, channel, channels)
    b = by_channel(statistics + 3 * channels, channel, channels)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    product = tl.zeros([ROWS, COLUMNS], tl.float32)
    for tile in range(split, tiles, splits):
        i, inside = tile_of(channel, tile, step, channels, ROWS)
        source, above = x, grad
        membrane = tl.zeros([ROWS, COLUMNS], tl.float32)
        for _ in range(steps):
            d = tl.load(above + i, mask=inside, other=0.0).to(tl.float32)
            current, d, membrane = gradient_of(
                source + i, d, inside, a, b, membrane, rate, threshold, slope
            )
            total += d
            product += d * (current - middle)
            source += between
            above += step
    store_sums(sums, total, product, channel, channels, split, splits)


@triton.jit
def store_sums(sums, total, product, channel, channels, split, splits):
    """Write the sums over the rows of a tile to ``sums`` [2, C, splits]."""
    at = channel * splits + split
    tl.store(sums + at, tl.sum(total, axis=0), mask=channel < channels)
    tl.store(sums + channels * splits + at, tl.sum(product, axis=0), mask=channel < channels)


@triton.jit
def norm_of(statistics, factors, channel, channels):
    """Return scale and shift of each channel, and its three factors, as rows."""
    a = by_channel(statistics + 2 * channels, channel, channels)
    b = by_channel(statistics + 3 * channels, channel, channels)
    by = by_channel(factors, channel, channels)
    of = by_channel(factors + channels, channel, channels)
    return a, b, by, of, by_channel(factors + 2 * channels, channel, channels)


@triton.jit(do_not_specialize=["steps"])
def write_gradients(
    grad, x, statistics, factors, out, steps, between, step, channels, rate, threshold, slope,
    NORM: tl.constexpr, CONSTANT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the currents of one tile to ``out``.

    With NORM (pass 2 of the backward pass through batch norm), ``factors`` holds three values for
    each channel, which turn the gradient of the normalised current into the gradient of the
    current.
    """
    blocks = tl.cdiv(channels, COLUMNS)
    place = tl.program_id(0)
    channel = place % blocks * COLUMNS + tl.arange(0, COLUMNS)
    i, inside = tile_of(channel, place // blocks, step, channels, ROWS)
    a, b, by, of, more = 1.0, 0.0, 1.0, 0.0, 0.0
    if NORM:
        a, b, by, of, more = norm_of(statistics, factors, channel, channels)
    source, above, target = x, grad, out
    membrane = tl.zeros([ROWS, COLUMNS], tl.float32)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for _ in range(steps):
        d = tl.load(above + i, mask=inside, other=0.0).to(tl.float32)
        current, d, membrane = gradient_of(
            source + i, d, inside, a, b, membrane, rate, threshold, slope
        )
        if CONSTANT:
            total += d
        else:
            if NORM:
                d = d * by + current * of + more
            tl.store(target + i, d.to(out.dtype.element_ty), mask=inside)
            target += step
        source += between
        above += step
    if CONSTANT:
        if NORM:
            current = tl.load(x + i, mask=inside, other=0.0).to(tl.float32)
            total = total * by + current * of + more
        tl.store(target + i, total.to(out.dtype.element_ty), mask=inside)
