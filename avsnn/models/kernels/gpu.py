"""Kernels for GPUs, in Triton, on float32 and bfloat16; the arithmetic is in float32.

The kernels allocate memory through torch and never wait for the GPU, so a CUDA graph can record
them. Products and sums are rounded one by one (no fused multiply-add), so the spikes are equal to
those of the reference to the bit. With ``TRITON_INTERPRET=1`` in the environment the kernels run on
a CPU, slowly, for tests.

In the Triton functions a *plane* is one channel of one clip, ``area`` values; ``between`` is the
distance from one time step of the current to the next, 0 for a constant current; ``step`` is the
number of values of one time step; ``a`` and ``b`` are scale and shift of a channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from avsnn.models.kernels.reference import count_spikes

if TYPE_CHECKING:
    from avsnn.models.kernels.layer_spec import LayerSpec

NAME = "triton"


def as_input(tensor: Tensor) -> Tensor:
    """Return ``tensor`` contiguous, as these kernels read memory."""
    return tensor.contiguous()


# Sums of one split of one channel about `centre`: sum and sum of squares, to out [C, splits, 2].
@triton.jit
def _moments(x, centre, out, count, channels, area, splits, BLOCK: tl.constexpr):
    channel, split = tl.program_id(0), tl.program_id(1)
    middle = tl.load(centre + channel).to(tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    square = tl.zeros([BLOCK], tl.float32)
    for start in range(split * BLOCK, count, splits * BLOCK):
        i = (start + tl.arange(0, BLOCK)).to(tl.int64)
        at = (i // area * channels + channel) * area + i % area
        off = tl.load(x + at, mask=i < count, other=0.0).to(tl.float32) - middle
        off = tl.where(i < count, off, 0.0)
        total += off
        square += off * off
    place = (channel * splits + split) * 2
    tl.store(out + place, tl.sum(total))
    tl.store(out + place + 1, tl.sum(square))


# Membrane potential of the neurons after one step, before the neurons fire.
@triton.jit
def _charge(x, at, inside, a, b, membrane, rate):
    current = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * a + b
    return membrane + (current - membrane) * rate


# Derivative of the surrogate, times rate. The function is even in `potential - threshold`.
@triton.jit
def _derivative(potential, rate, threshold, slope):
    e = tl.exp(-tl.abs(slope * (potential - threshold)))
    return slope * rate * e / ((1.0 + e) * (1.0 + e))


# Spikes of one block of neurons over all steps; the membrane potential stays in registers.
@triton.jit
def _fire(
    x, scale, shift, spikes, steps, between, step, channels, area, rate, threshold,
    SCALED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < step
    a, b = 1.0, 0.0
    if SCALED:
        a = tl.load(scale + i // area % channels, mask=inside, other=0.0)
        b = tl.load(shift + i // area % channels, mask=inside, other=0.0)
    membrane = tl.zeros([BLOCK], tl.float32)
    for t in range(steps):
        h = _charge(x, t * between + i, inside, a, b, membrane, rate)
        fires = h >= threshold
        tl.store(
            spikes + t * step + i,
            tl.where(fires, 1.0, 0.0).to(spikes.dtype.element_ty),
            mask=inside,
        )
        membrane = tl.where(fires, 0.0, h)


# Gradients of one block of one plane, and their sums over the block to `sums`.
@triton.jit
def _fire_backward(
    grad, x, scale, shift, centre, out, sums, steps, between, step, channels, area, rate, threshold,
    slope, SCALED: tl.constexpr, CENTRED: tl.constexpr, CONSTANT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    plane, block = tl.program_id(0), tl.program_id(1)
    j = block * BLOCK + tl.arange(0, BLOCK)
    i = plane.to(tl.int64) * area + j
    inside = j < area
    channel = plane % channels
    a, b, middle = 1.0, 0.0, 0.0
    if SCALED:
        a, b = tl.load(scale + channel), tl.load(shift + channel)
    if CENTRED:
        middle = tl.load(centre + channel)
    membrane = tl.zeros([BLOCK], tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    product = tl.zeros([BLOCK], tl.float32)
    for t in range(steps):
        h = _charge(x, t * between + i, inside, a, b, membrane, rate)
        g = tl.load(grad + t * step + i, mask=inside, other=0.0).to(tl.float32)
        d = g * _derivative(h, rate, threshold, slope)
        membrane = tl.where(h >= threshold, 0.0, h)
        total += d
        if not CONSTANT:
            tl.store(out + t * step + i, d.to(out.dtype.element_ty), mask=inside)
            off = tl.load(x + t * between + i, mask=inside, other=0.0).to(tl.float32) - middle
            product += d * off
    if CONSTANT:
        tl.store(out + i, total.to(out.dtype.element_ty), mask=inside)
        product = total * (tl.load(x + i, mask=inside, other=0.0).to(tl.float32) - middle)
    place = (plane * tl.num_programs(1) + block) * 2
    tl.store(sums + place, tl.sum(total))
    tl.store(sums + place + 1, tl.sum(product))


# Place k of each 3x3 window: its potential, whether the place fires, whether it lies in the image.
@triton.jit
def _window(
    x, a, b, membrane, k: tl.constexpr, start, row, column, height, width, inside, rate, threshold,
):  # fmt: skip
    r, c = row * 2 + k // 3 - 1, column * 2 + k % 3 - 1
    here = inside & (r >= 0) & (r < height) & (c >= 0) & (c < width)
    h = _charge(x, start + r * width + c, here, a, b, membrane, rate)
    return h, here & (h >= threshold), here


# Spikes and 3x3 max pooling of one block of windows. Each program keeps the potentials of all nine
# places of its windows. BACKWARD writes the winner of each window to `place`, and the gradient that
# the winner gets to `share`.
@triton.jit
def _fire_pool(
    x, scale, shift, grad, pooled, share, place, steps, between, planes, channels, height, width,
    high, wide, rate, threshold, slope, SCALED: tl.constexpr, BACKWARD: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(0)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = j < high * wide
    row, column = j // wide, j % wide
    a, b = 1.0, 0.0
    if SCALED:
        a, b = tl.load(scale + plane % channels), tl.load(shift + plane % channels)
    none = tl.zeros([BLOCK], tl.float32)
    m0, m1, m2, m3, m4, m5, m6, m7, m8 = none, none, none, none, none, none, none, none, none
    for t in range(steps):
        start = t * between + plane.to(tl.int64) * height * width
        args = (row, column, height, width, inside, rate, threshold)
        h0, f0, v0 = _window(x, a, b, m0, 0, start, *args)
        h1, f1, v1 = _window(x, a, b, m1, 1, start, *args)
        h2, f2, _ = _window(x, a, b, m2, 2, start, *args)
        h3, f3, v3 = _window(x, a, b, m3, 3, start, *args)
        h4, f4, _ = _window(x, a, b, m4, 4, start, *args)
        h5, f5, _ = _window(x, a, b, m5, 5, start, *args)
        h6, f6, _ = _window(x, a, b, m6, 6, start, *args)
        h7, f7, _ = _window(x, a, b, m7, 7, start, *args)
        h8, f8, _ = _window(x, a, b, m8, 8, start, *args)
        out = (t * planes + plane).to(tl.int64) * (high * wide) + j
        if BACKWARD:
            # The winner is the first place of the window that lies inside the image, unless a
            # place fires: then the winner is the first place that fires. The statements go from
            # the last place to the first, so the first place that fires is written last.
            which = tl.where(v0, 0, tl.where(v1, 1, tl.where(v3, 3, 4)))
            h = tl.where(v0, h0, tl.where(v1, h1, tl.where(v3, h3, h4)))
            which, h = tl.where(f8, 8, which), tl.where(f8, h8, h)
            which, h = tl.where(f7, 7, which), tl.where(f7, h7, h)
            which, h = tl.where(f6, 6, which), tl.where(f6, h6, h)
            which, h = tl.where(f5, 5, which), tl.where(f5, h5, h)
            which, h = tl.where(f4, 4, which), tl.where(f4, h4, h)
            which, h = tl.where(f3, 3, which), tl.where(f3, h3, h)
            which, h = tl.where(f2, 2, which), tl.where(f2, h2, h)
            which, h = tl.where(f1, 1, which), tl.where(f1, h1, h)
            which, h = tl.where(f0, 0, which), tl.where(f0, h0, h)
            g = tl.load(grad + out, mask=inside, other=0.0).to(tl.float32)
            d = g * _derivative(h, rate, threshold, slope)
            tl.store(share + out, d.to(share.dtype.element_ty), mask=inside)
            tl.store(place + out, which.to(tl.int8), mask=inside)
        else:
            fires = f0 | f1 | f2 | f3 | f4 | f5 | f6 | f7 | f8
            tl.store(
                pooled + out, tl.where(fires, 1.0, 0.0).to(pooled.dtype.element_ty), mask=inside
            )
        m0, m1, m2 = tl.where(f0, 0.0, h0), tl.where(f1, 0.0, h1), tl.where(f2, 0.0, h2)
        m3, m4, m5 = tl.where(f3, 0.0, h3), tl.where(f4, 0.0, h4), tl.where(f5, 0.0, h5)
        m6, m7, m8 = tl.where(f6, 0.0, h6), tl.where(f7, 0.0, h7), tl.where(f8, 0.0, h8)


# Gradient that one window sends to its place k; 0 if another place won, or if there is no window.
@triton.jit
def _sent(share, place, start, row, column, k, high, wide, inside):
    here = inside & (row >= 0) & (row < high) & (column >= 0) & (column < wide) & (k < 9)
    at = start + row * wide + column
    won = tl.load(place + at, mask=here, other=9) == k
    return tl.where(won, tl.load(share + at, mask=here, other=0.0).to(tl.float32), 0.0)


# Gradients of one block of one plane: the sum of what the up to four windows around a value send.
@triton.jit
def _unpool(
    share, place, x, centre, out, sums, steps, between, planes, channels, height, width, high, wide,
    CENTRED: tl.constexpr, CONSTANT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    plane, block = tl.program_id(0), tl.program_id(1)
    j = block * BLOCK + tl.arange(0, BLOCK)
    area = height * width
    inside = j < area
    r, c = j // width, j % width
    # An even row is the middle row of one row of windows. An odd row is the bottom row of one row
    # of windows and the top row of the next. The same holds for columns.
    row, column = r // 2, c // 2
    down = tl.where(r % 2 == 0, 3, 6)
    right = tl.where(c % 2 == 0, 1, 2)
    # A window has the places 0 to 8, so 9 matches no winner.
    no_row, no_column = tl.where(r % 2 == 0, 9, 0), tl.where(c % 2 == 0, 9, 0)
    middle = 0.0
    if CENTRED:
        middle = tl.load(centre + plane % channels)
    total = tl.zeros([BLOCK], tl.float32)
    product = tl.zeros([BLOCK], tl.float32)
    for t in range(steps):
        start = (t * planes + plane).to(tl.int64) * (high * wide)
        d = _sent(share, place, start, row, column, down + right, high, wide, inside)
        d += _sent(share, place, start, row, column + 1, down + no_column, high, wide, inside)
        d += _sent(share, place, start, row + 1, column, no_row + right, high, wide, inside)
        both = no_row + no_column
        d += _sent(share, place, start, row + 1, column + 1, both, high, wide, inside)
        total += d
        if not CONSTANT:
            i = t * between + plane.to(tl.int64) * area + j
            tl.store(out + i, d.to(out.dtype.element_ty), mask=inside)
            product += d * (tl.load(x + i, mask=inside, other=0.0).to(tl.float32) - middle)
    if CONSTANT:
        i = plane.to(tl.int64) * area + j
        tl.store(out + i, total.to(out.dtype.element_ty), mask=inside)
        product = total * (tl.load(x + i, mask=inside, other=0.0).to(tl.float32) - middle)
    at = (plane * tl.num_programs(1) + block) * 2
    tl.store(sums + at, tl.sum(total))
    tl.store(sums + at + 1, tl.sum(product))


# grad = grad * a + x * b + c for each channel, in place.
@triton.jit
def _norm_backward(grad, x, a, b, c, count, channels, area, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    channel = i // area % channels
    g = tl.load(grad + i, mask=inside, other=0.0).to(tl.float32)
    current = tl.load(x + i, mask=inside, other=0.0).to(tl.float32)
    by = tl.load(a + channel, mask=inside, other=0.0)
    of = tl.load(b + channel, mask=inside, other=0.0)
    more = tl.load(c + channel, mask=inside, other=0.0)
    g = g * by + current * of + more
    tl.store(grad + i, g.to(grad.dtype.element_ty), mask=inside)


def moments(current: Tensor) -> Tensor:
    """Compute ``reference.moments``, in float32."""
    frames, channels = current.shape[:2]
    area = current[0, 0].numel()
    count = frames * area
    block = _block(count)
    splits = min(triton.cdiv(count, block), max(1, 1024 // channels))
    partial = current.new_empty((channels, splits, 2), dtype=torch.float32)
    centre = current.view(frames, channels, area)[0, :, 0].contiguous()
    _moments[(channels, splits)](
        current, centre, partial, count, channels, area, splits, BLOCK=block
    )
    total, square = (partial.double().sum(1) / count).unbind(1)
    return torch.stack([centre.double() + total, square - total * total]).float()


def fire(
    current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: LayerSpec
) -> tuple[Tensor, Tensor]:
    """Compute ``reference.fire``."""
    if layer.pooled:
        whole = layer._replace(pooled=False)
        count = count_spikes(_fire_and_pool(current, scale, shift, whole))
        return _fire_and_pool(current, scale, shift, layer), count
    spikes = _fire_and_pool(current, scale, shift, layer)
    return spikes, count_spikes(spikes)


def _fire_and_pool(
    current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: LayerSpec
) -> Tensor:
    batch, channels, *sides = _frame_with_channels(current, layer)
    step = current.numel() // (1 if layer.constant else layer.steps)
    between, scaled, rate = 0 if layer.constant else step, scale is not None, 1.0 / layer.tau
    if not layer.pooled:
        area = step // (batch * channels)
        spikes = current.new_empty(layer.spike_shape(current))
        block = _block(step)
        _fire[(triton.cdiv(step, block),)](
            current, scale, shift, spikes, layer.steps, between, step, channels, area, rate,
            layer.threshold, SCALED=scaled, BLOCK=block, enable_fp_fusion=False,
        )  # fmt: skip
        return spikes
    pooled = current.new_empty(layer.spike_shape(current))
    high, wide = pooled.shape[-2:]
    block = _block(high * wide)
    _fire_pool[(batch * channels, triton.cdiv(high * wide, block))](
        current, scale, shift, None, pooled, None, None, layer.steps, between, batch * channels,
        channels, *sides, high, wide, rate, layer.threshold, layer.slope, SCALED=scaled,
        BACKWARD=False, BLOCK=block, enable_fp_fusion=False,
    )  # fmt: skip
    return pooled


def fire_backward(
    grad: Tensor,
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    centre: Tensor | None,
    layer: LayerSpec,
) -> tuple[Tensor, Tensor]:
    """Compute ``reference.fire_backward``."""
    batch, channels, *sides = _frame_with_channels(current, layer)
    planes, steps = batch * channels, layer.steps
    step = current.numel() // (1 if layer.constant else steps)
    area, between = step // planes, 0 if layer.constant else step
    scaled, centred, rate = scale is not None, centre is not None, 1.0 / layer.tau
    out = torch.empty_like(current)
    block = _block(area)
    blocks = triton.cdiv(area, block)
    sums = current.new_empty((batch, channels, blocks, 2), dtype=torch.float32)
    if layer.pooled:
        high, wide = grad.shape[-2:]
        share = torch.empty_like(grad)
        place = torch.empty_like(grad, dtype=torch.int8)
        small = _block(high * wide)
        _fire_pool[(planes, triton.cdiv(high * wide, small))](
            current, scale, shift, grad, None, share, place, steps, between, planes, channels,
            *sides, high, wide, rate, layer.threshold, layer.slope, SCALED=scaled, BACKWARD=True,
            BLOCK=small, enable_fp_fusion=False,
        )  # fmt: skip
        _unpool[(planes, blocks)](
            share, place, current, centre, out, sums, steps, between, planes, channels, *sides,
            high, wide, CENTRED=centred, CONSTANT=layer.constant, BLOCK=block,
        )  # fmt: skip
    else:
        _fire_backward[(planes, blocks)](
            grad, current, scale, shift, centre, out, sums, steps, between, step, channels, area,
            rate, layer.threshold, layer.slope, SCALED=scaled, CENTRED=centred,
            CONSTANT=layer.constant, BLOCK=block, enable_fp_fusion=False,
        )  # fmt: skip
    return out, sums.sum((0, 2))


def _frame_with_channels(current: Tensor, layer: LayerSpec) -> tuple[int, ...]:
    frame = layer.frame_shape(current)
    return frame if len(frame) > 1 else (1, *frame)


def norm_backward(grad: Tensor, current: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
    """Compute ``reference.norm_backward``, in place."""
    count, channels, area = grad.numel(), grad.shape[1], grad[0, 0].numel()
    block = _block(count)
    _norm_backward[(triton.cdiv(count, block),)](
        grad, current, a, b, c, count, channels, area, BLOCK=block
    )


def _block(count: int) -> int:
    """Return the number of values that one program computes: a power of 2 from 32 to 1024."""
    return int(min(1024, max(32, triton.next_power_of_2(count))))
