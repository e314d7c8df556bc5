"""Triton functions of neurons with 3x3 max pooling behind them, stride 2 and padding 1.

A *window* is one window of all channels of one clip. The windows of a clip lie on a grid of
``high`` times ``wide``. The places of a window have the numbers 0 to 8, in reading order. A winner
is kept as ``4 * r + c``, with its row r and its column c in the window, so two bit operations give
both.

Bytes of memory traffic for N currents of four bytes at each of T = 4 steps, N / 4 windows:

- Forward, 22 N: ``fire_tiles`` reads 16 N and writes the spikes of all steps as one byte, N;
  ``pool_bytes`` reads N and writes 4 N. Each neuron is computed once. A single kernel would move
  20 N, but would compute each neuron 2.25 times, once for every window around the neuron. On an
  H100 the instructions would take about as long as the memory traffic of float32, and longer than
  the traffic of bfloat16 or of a constant current.
- Backward, 58 N: ``sum_pooled_gradients`` reads 16 N of currents and 4 N of gradients, and writes
  the winners, N; ``write_pooled_gradients`` reads all of them again, 21 N, and writes 16 N. The
  first kernel does compute each neuron 2.25 times, because the alternative, spikes as bytes and
  winners from bytes, would move 19 N more.
"""

from __future__ import annotations

import triton
import triton.language as tl

from avsnn.models.kernels.gpu_neurons import (
    by_channel,
    charge,
    derivative,
    gradient_of,
    norm_of,
    store_sums,
)

# Windows and channels of one program of the kernels that go from bytes to pooled spikes, and of the
# kernels that compute gradients. The latter hold up to nine potentials for each window and channel,
# so they have one window and channel for each thread.
POOL_ROWS, ROWS, COLUMNS = 16, 4, 32


@triton.jit
def window_of(tile, windows, height, width, high, wide, ROWS: tl.constexpr):
    """Return number, row, column and middle pixel of each window, and which windows there are."""
    window = tile * ROWS + tl.arange(0, ROWS)
    line = window // wide
    clip = line // high
    row, column = line - clip * high, window - line * wide
    return window, row, column, (clip * height + 2 * row) * width + 2 * column, window < windows


@triton.jit
def around(row, column, channels, height, width):
    """Return the distances from the middle of each window to the rows and columns around it.

    Outside of the image the distance is 0, so a place outside repeats a place of the same window.
    """
    up, left = tl.where(row > 0, -width, 0) * channels, tl.where(column > 0, -1, 0) * channels
    down = tl.where(2 * row + 1 < height, width, 0) * channels
    right = tl.where(2 * column + 1 < width, 1, 0) * channels
    return up[:, None], down[:, None], left[:, None], right[:, None]


@triton.jit(do_not_specialize=["steps", "windows", "height", "width", "high", "wide"])
def pool_bytes(
    bits, pooled, steps, step, pooled_step, windows, channels, height, width, high, wide,
    STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write pooled spikes, from the bytes that ``fire_tiles`` packed."""
    blocks = tl.cdiv(channels, COLUMNS)
    place = tl.program_id(0)
    channel = place % blocks * COLUMNS + tl.arange(0, COLUMNS)
    window, row, column, middle, there = window_of(
        place // blocks, windows, height, width, high, wide, ROWS
    )
    inside = there[:, None] & (channel < channels)[None, :]
    i = middle.to(tl.int64)[:, None] * channels + channel[None, :]
    at = window.to(tl.int64)[:, None] * channels + channel[None, :]
    source, target = bits, pooled
    up, down, left, right = around(row, column, channels, height, width)
    for begin in range(0, steps, STEPS):
        spikes = tl.load(source + i, mask=inside, other=0)
        spikes |= tl.load(source + (i + left), mask=inside, other=0)
        spikes |= tl.load(source + (i + right), mask=inside, other=0)
        spikes |= tl.load(source + (i + up), mask=inside, other=0)
        spikes |= tl.load(source + (i + up + left), mask=inside, other=0)
        spikes |= tl.load(source + (i + up + right), mask=inside, other=0)
        spikes |= tl.load(source + (i + down), mask=inside, other=0)
        spikes |= tl.load(source + (i + down + left), mask=inside, other=0)
        spikes |= tl.load(source + (i + down + right), mask=inside, other=0)
        packed = spikes.to(tl.int32)
        for t in range(tl.minimum(STEPS, steps - begin)):
            values = tl.where((packed >> t) & 1 == 1, 1.0, 0.0).to(pooled.dtype.element_ty)
            tl.store(target + at, values, mask=inside)
            target += pooled_step
        source += step


@triton.jit
def contend(
    x, inside, a, b, membrane, k: tl.constexpr, winner, potential, value, rate, threshold
):  # fmt: skip
    """Let place k win the windows where it fires, or where it is the last one and none has fired.

    Places contend from the last to the first, so the first place that fires wins. Returns the
    potential of the place after the step; the winner so far, 3 for none; and the winner's potential
    and current.
    """
    current = tl.load(x, mask=inside, other=0.0).to(tl.float32)
    h = charge(current, a, b, membrane, rate)
    fires = h >= threshold
    wins = fires
    if k == 0:
        wins = fires | (winner == 3)
    after = tl.where(fires, 0.0, h)
    winner, potential = tl.where(wins, k, winner), tl.where(wins, h, potential)
    return after, winner, potential, tl.where(wins, current, value)


@triton.jit(
    do_not_specialize=["steps", "tiles", "splits", "windows", "height", "width", "high", "wide"]
)
def sum_pooled_gradients(
    grad, x, statistics, winners, sums, steps, between, pooled_step, tiles, splits, windows,
    channels, height, width, high, wide, rate, threshold, slope, NORM: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the winner of each window at each step to ``winners``.

    The winner is the first place that fires, or, if no place fires, the first place that lies in
    the image. With NORM, write also the sums of ``gpu_neurons.sum_gradients``: only winners have a
    gradient, so the sums over winners suffice.
    """
    block, split = tl.program_id(0), tl.program_id(1)
    channel = block * COLUMNS + tl.arange(0, COLUMNS)
    middle, a, b = 0.0, 1.0, 0.0
    if NORM:
        middle = by_channel(statistics, channel, channels)
        a = by_channel(statistics + 2 * channels, channel, channels)
        b = by_channel(statistics + 3 * channels, channel, channels)
    none = tl.zeros([ROWS, COLUMNS], tl.float32)
    nobody = tl.full([ROWS, COLUMNS], 3, tl.int32)
    total, product, args = none, none, (rate, threshold)
    for tile in range(split, tiles, splits):
        window, row, column, pixel, there = window_of(
            tile, windows, height, width, high, wide, ROWS
        )
        inside = there[:, None] & (channel < channels)[None, :]
        i = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
        at = window.to(tl.int64)[:, None] * channels + channel[None, :]
        source, above, target = x, grad, winners
        up, down, left, right = around(row, column, channels, height, width)
        i0, i1, i2, i3 = i + up + left, i + up, i + up + right, i + left
        i5, i6, i7, i8 = i + right, i + down + left, i + down, i + down + right
        first_row = tl.where(row == 0, 1, 0)[:, None]
        first_column = tl.where(column == 0, 1, 0)[:, None]
        m0, m1, m2, m3, m4, m5, m6, m7, m8 = none, none, none, none, none, none, none, none, none
        for _ in range(steps):
            w, h, v = nobody, none, none
            m8, w, h, v = contend(source + i8, inside, a, b, m8, 10, w, h, v, *args)
            m7, w, h, v = contend(source + i7, inside, a, b, m7, 9, w, h, v, *args)
            m6, w, h, v = contend(source + i6, inside, a, b, m6, 8, w, h, v, *args)
            m5, w, h, v = contend(source + i5, inside, a, b, m5, 6, w, h, v, *args)
            m4, w, h, v = contend(source + i, inside, a, b, m4, 5, w, h, v, *args)
            m3, w, h, v = contend(source + i3, inside, a, b, m3, 4, w, h, v, *args)
            m2, w, h, v = contend(source + i2, inside, a, b, m2, 2, w, h, v, *args)
            m1, w, h, v = contend(source + i1, inside, a, b, m1, 1, w, h, v, *args)
            m0, w, h, v = contend(source + i0, inside, a, b, m0, 0, w, h, v, *args)
            # A place above or left of the image repeats the next row or column of places. A place
            # below or right of the image repeats an earlier place, which would have won.
            r, c = tl.maximum(w >> 2, first_row), tl.maximum(w & 3, first_column)
            tl.store(target + at, (r * 4 + c).to(tl.int8), mask=inside)
            if NORM:
                d = tl.load(above + at, mask=inside, other=0.0).to(tl.float32)
                d *= derivative(h, rate, threshold, slope)
                total += d
                product += d * (v - middle)
            source += between
            above += pooled_step
            target += pooled_step
    if NORM:
        store_sums(sums, total, product, channel, channels, split, splits)


@triton.jit
def write_place(
    d, total, membrane, x, out, inside, a, b, by, of, more, rate, threshold, slope,
    NORM: tl.constexpr, CONSTANT: tl.constexpr,
):  # fmt: skip
    """Write the gradient at one place of each window; add it to ``total`` if CONSTANT.

    ``d`` is the sum of the gradients that the windows around the place send to the place. Returns
    the total and the potential after the step.
    """
    current, d, membrane = gradient_of(x, d, inside, a, b, membrane, rate, threshold, slope)
    if CONSTANT:
        total += d
    else:
        if NORM:
            d = d * by + current * of + more
        tl.store(out, d.to(out.dtype.element_ty), mask=inside)
    return total, membrane


@triton.jit
def window_at(winners, grad, inside, at):
    """Return winner and gradient of each window; a window outside has 3, which no place has."""
    winner = tl.load(winners + at, mask=inside, other=3).to(tl.int32)
    return winner, tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_total(total, x, out, inside, by, of, more, NORM: tl.constexpr):
    """Write the total of the gradients at one place of a constant current to ``out``."""
    if NORM:
        current = tl.load(x, mask=inside, other=0.0).to(tl.float32)
        total = total * by + current * of + more
    tl.store(out, total.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["steps", "windows", "height", "width", "high", "wide"])
def write_pooled_gradients(
    grad, x, statistics, winners, factors, out, steps, between, pooled_step, windows, channels,
    height, width, high, wide, rate, threshold, slope, NORM: tl.constexpr, CONSTANT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the currents to ``out``; ``factors`` as for ``write_gradients``.

    Each thread has the four places 4, 5, 7 and 8 of one window, which are places of up to four
    windows: of this window, of the window to the right, of the window below, and of the window
    below to the right.
    """
    blocks = tl.cdiv(channels, COLUMNS)
    place = tl.program_id(0)
    channel = place % blocks * COLUMNS + tl.arange(0, COLUMNS)
    window, row, column, pixel, there = window_of(
        place // blocks, windows, height, width, high, wide, ROWS
    )
    inside = there[:, None] & (channel < channels)[None, :]
    a, b, by, of, more = 1.0, 0.0, 1.0, 0.0, 0.0
    if NORM:
        a, b, by, of, more = norm_of(statistics, factors, channel, channels)
    i = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    at = window.to(tl.int64)[:, None] * channels + channel[None, :]
    right, below, corner = channels, width * channels, (width + 1) * channels
    # Places inside the image, and windows inside the grid.
    in5 = inside & (2 * column + 1 < width)[:, None]
    in7, in8 = inside & (2 * row + 1 < height)[:, None], in5 & (2 * row + 1 < height)[:, None]
    w5 = inside & (column + 1 < wide)[:, None]
    w7, w8 = inside & (row + 1 < high)[:, None], w5 & (row + 1 < high)[:, None]
    none = tl.zeros([ROWS, COLUMNS], tl.float32)
    m4, m5, m7, m8 = none, none, none, none
    t4, t5, t7, t8 = none, none, none, none
    source, target, won, above = x + i, out + i, winners + at, grad + at
    args = (a, b, by, of, more, rate, threshold, slope, NORM, CONSTANT)
    for _ in range(steps):
        own, g = window_at(won, above, inside, 0)
        d4, d5 = tl.where(own == 5, g, 0.0), tl.where(own == 6, g, 0.0)
        d7, d8 = tl.where(own == 9, g, 0.0), tl.where(own == 10, g, 0.0)
        other, g = window_at(won, above, w5, channels)
        d5, d8 = d5 + tl.where(other == 4, g, 0.0), d8 + tl.where(other == 8, g, 0.0)
        other, g = window_at(won, above, w7, wide * channels)
        d7, d8 = d7 + tl.where(other == 1, g, 0.0), d8 + tl.where(other == 2, g, 0.0)
        other, g = window_at(won, above, w8, (wide + 1) * channels)
        d8 += tl.where(other == 0, g, 0.0)
        t4, m4 = write_place(d4, t4, m4, source, target, inside, *args)
        t5, m5 = write_place(d5, t5, m5, source + right, target + right, in5, *args)
        t7, m7 = write_place(d7, t7, m7, source + below, target + below, in7, *args)
        t8, m8 = write_place(d8, t8, m8, source + corner, target + corner, in8, *args)
        target += between
        source += between
        won += pooled_step
        above += pooled_step
    if CONSTANT:
        # `between` is 0, so both still point at the first step.
        store_total(t4, source, target, inside, by, of, more, NORM)
        store_total(t5, source + right, target + right, in5, by, of, more, NORM)
        store_total(t7, source + below, target + below, in7, by, of, more, NORM)
        store_total(t8, source + corner, target + corner, in8, by, of, more, NORM)
