"""Attention and the neurons on its output as one kernel for GPUs, in Triton.

One program computes the channels of one head of one clip, for a block of tokens and all time steps:
potentials stay in registers, and neither the scores nor the attention output reaches memory. The
spikes of query, key and value are 0 or 1, and the first of the two products holds whole numbers up
to ``MAX_TOKENS`` or ``MAX_WIDTH``. Both are exact in float16, sums are in float32, and the neurons
compute as in ``gpu.py``, so the spikes are equal to those of ``attention_products.py`` to the bit.

The kernels read and write memory with the channels innermost, ``[T, B, N, C]``. In the Triton
functions a *slot* is the place of D channels in the result. The slot is the head, except where
heads and time steps are interleaved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from avsnn.models.kernels.gpu import add_counts, on_its_device
from avsnn.models.kernels.gpu_neurons import charge, derivative

if TYPE_CHECKING:
    from avsnn.models.kernels.layer_spec import AttentionSpec

# Largest N of attention over tokens, D, and T of attention over time steps. A program holds whole
# matrices of N x D values, which no longer fit into registers above MAX_TILE values, and attention
# over time steps reads keys and values T times.
MAX_TOKENS, MAX_WIDTH, MAX_STEPS = 256, 128, 32
MAX_TILE = 4096
# Tokens that one program computes in attention over time steps.
BLOCK = 64


# Head and time step whose attention is the input of the neurons of `slot` at `step`.
@triton.jit
def _source(slot, step, steps, heads, INTERLEAVED: tl.constexpr):
    head, t = slot, step
    if INTERLEAVED:
        row = step * heads + slot
        head, t = row // steps, row % steps
    return head, t


# Place of the values of one head of one clip at one time step.
@triton.jit
def _place(head, step, clip, clips, tokens, channels, WIDTH: tl.constexpr):
    return (step * clips + clip).to(tl.int64) * tokens * channels + head * WIDTH


# Attention of one head: over tokens by two products of matrices in the cheaper order, over time
# steps by sums over `steps`.
@triton.jit
def _attend(
    query, key, value, keys, values, own, inside, head, clip, steps, clips, tokens, channels,
    OVER_TOKENS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS_FIRST: tl.constexpr,
):  # fmt: skip
    if OVER_TOKENS:
        q, k, v = query.to(tl.float16), key.to(tl.float16), value.to(tl.float16)
        if CHANNELS_FIRST:
            mixed = tl.dot(q, tl.dot(tl.trans(k), v).to(tl.float16))
        else:
            mixed = tl.dot(tl.dot(q, tl.trans(k)).to(tl.float16), v)
    else:
        q = query.to(tl.float32)
        mixed = tl.zeros_like(q)
        for t in range(steps):
            at = _place(head, t, clip, clips, tokens, channels, WIDTH) + own
            k = tl.load(keys + at, mask=inside, other=0).to(tl.float32)
            v = tl.load(values + at, mask=inside, other=0).to(tl.float32)
            mixed += tl.sum(q * k, axis=1)[:, None] * v
    return mixed * 0.25


# Clip and head of one program, the places of its values in one head, and which of these there are.
@triton.jit
def _tile(tokens, channels, heads, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    clip, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    return clip, head, row * channels + column, (row < tokens) & (column < WIDTH)


# Spikes of the neurons of one slot of one clip; the number of spikes to `counts`; and the spikes of
# query, key and value as bytes to `packed` [3, T, B, N, C].
@triton.jit
def _attend_fire(
    queries, keys, values, spikes, packed, counts, size, steps, clips, tokens, channels, heads,
    rate, threshold, OVER_TOKENS: tl.constexpr, INTERLEAVED: tl.constexpr, WIDTH: tl.constexpr,
    CHANNELS_FIRST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    clip, slot, own, inside = _tile(tokens, channels, heads, WIDTH, ROWS, COLUMNS)
    membrane = tl.zeros([ROWS, COLUMNS], tl.float32)
    total = tl.zeros([ROWS, COLUMNS], tl.int32)
    for step in range(steps):
        head, t = _source(slot, step, steps, heads, INTERLEAVED)
        at = _place(head, t, clip, clips, tokens, channels, WIDTH) + own
        query = tl.load(queries + at, mask=inside, other=0)
        key = tl.load(keys + at, mask=inside, other=0)
        value = tl.load(values + at, mask=inside, other=0)
        tl.store(packed + at, query.to(tl.uint8), mask=inside)
        tl.store(packed + size + at, key.to(tl.uint8), mask=inside)
        tl.store(packed + size + size + at, value.to(tl.uint8), mask=inside)
        current = _attend(
            query, key, value, keys, values, own, inside, head, clip, steps, clips, tokens,
            channels, OVER_TOKENS, WIDTH, CHANNELS_FIRST,
        )  # fmt: skip
        h = charge(current, 1.0, 0.0, membrane, rate)
        fires = h >= threshold
        at = _place(slot, step, clip, clips, tokens, channels, WIDTH) + own
        tl.store(spikes + at, tl.where(fires, 1.0, 0.0).to(spikes.dtype.element_ty), mask=inside)
        total += (fires & inside).to(tl.int32)
        membrane = tl.where(fires, 0.0, h)
    place = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(counts + place, tl.sum(total))


# Gradients of query, key and value of attention over tokens, one head at one time step, from the
# gradient of the attention output. Gradients are no whole numbers, so PRECISION matters.
@triton.jit
def _tokens_backward(
    query, key, value, grad, CHANNELS_FIRST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    q, k, v = query.to(tl.float16), key.to(tl.float16), value.to(tl.float16)
    wide_q, wide_k, wide_v = query.to(tl.float32), key.to(tl.float32), value.to(tl.float32)
    if CHANNELS_FIRST:
        across = tl.dot(tl.trans(k), v)
        back = tl.dot(tl.trans(wide_q), grad, input_precision=PRECISION)
        of_query = tl.dot(grad, tl.trans(across), input_precision=PRECISION)
        of_key = tl.dot(wide_v, tl.trans(back), input_precision=PRECISION)
        of_value = tl.dot(wide_k, back, input_precision=PRECISION)
    else:
        scores = tl.dot(q, tl.trans(k))
        back = tl.dot(grad, tl.trans(wide_v), input_precision=PRECISION)
        of_query = tl.dot(back, wide_k, input_precision=PRECISION)
        of_key = tl.dot(tl.trans(back), wide_q, input_precision=PRECISION)
        of_value = tl.dot(tl.trans(scores), grad, input_precision=PRECISION)
    return of_query, of_key, of_value


# Gradients for one slot of one clip, from `grad`, the gradient of the spikes. Over tokens they are
# the gradients of query, key and value. Over time steps they are the gradient of the attention
# output, to `mixed`, because a slot may hold time steps of several heads.
@triton.jit
def _attend_fire_backward(
    grad, queries, keys, values, mixed, of_queries, of_keys, of_values, steps, clips, tokens,
    channels, heads, rate, threshold, slope, OVER_TOKENS: tl.constexpr, INTERLEAVED: tl.constexpr,
    WIDTH: tl.constexpr, CHANNELS_FIRST: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    clip, slot, own, inside = _tile(tokens, channels, heads, WIDTH, ROWS, COLUMNS)
    membrane = tl.zeros([ROWS, COLUMNS], tl.float32)
    for step in range(steps):
        head, t = _source(slot, step, steps, heads, INTERLEAVED)
        at = _place(head, t, clip, clips, tokens, channels, WIDTH) + own
        query = tl.load(queries + at, mask=inside, other=0)
        key = tl.load(keys + at, mask=inside, other=0)
        value = tl.load(values + at, mask=inside, other=0)
        current = _attend(
            query, key, value, keys, values, own, inside, head, clip, steps, clips, tokens,
            channels, OVER_TOKENS, WIDTH, CHANNELS_FIRST,
        )  # fmt: skip
        h = charge(current, 1.0, 0.0, membrane, rate)
        membrane = tl.where(h >= threshold, 0.0, h)
        here = _place(slot, step, clip, clips, tokens, channels, WIDTH) + own
        g = tl.load(grad + here, mask=inside, other=0.0).to(tl.float32)
        g = g * derivative(h, rate, threshold, slope) * 0.25
        if OVER_TOKENS:
            q, k, v = _tokens_backward(query, key, value, g, CHANNELS_FIRST, PRECISION)
            kind = of_queries.dtype.element_ty
            tl.store(of_queries + at, q.to(kind), mask=inside)
            tl.store(of_keys + at, k.to(kind), mask=inside)
            tl.store(of_values + at, v.to(kind), mask=inside)
        else:
            tl.store(mixed + at, g, mask=inside)


# Gradients of query, key and value of attention over time steps, for one head of one clip, from the
# gradient of the attention output.
@triton.jit
def _steps_backward(
    mixed, queries, keys, values, of_queries, of_keys, of_values, steps, clips, tokens, channels,
    heads, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    clip, head, own, inside = _tile(tokens, channels, heads, WIDTH, ROWS, COLUMNS)
    kind = of_queries.dtype.element_ty
    for t in range(steps):
        at = _place(head, t, clip, clips, tokens, channels, WIDTH) + own
        key = tl.load(keys + at, mask=inside, other=0).to(tl.float32)
        value = tl.load(values + at, mask=inside, other=0).to(tl.float32)
        grad = tl.load(mixed + at, mask=inside, other=0.0)
        of_query = tl.zeros([ROWS, COLUMNS], tl.float32)
        of_key = tl.zeros([ROWS, COLUMNS], tl.float32)
        of_value = tl.zeros([ROWS, COLUMNS], tl.float32)
        for other in range(steps):
            there = _place(head, other, clip, clips, tokens, channels, WIDTH) + own
            q = tl.load(queries + there, mask=inside, other=0).to(tl.float32)
            k = tl.load(keys + there, mask=inside, other=0).to(tl.float32)
            v = tl.load(values + there, mask=inside, other=0).to(tl.float32)
            g = tl.load(mixed + there, mask=inside, other=0.0)
            of_query += tl.sum(grad * v, axis=1)[:, None] * k
            of_key += tl.sum(g * value, axis=1)[:, None] * q
            of_value += tl.sum(q * key, axis=1)[:, None] * g
        tl.store(of_queries + at, of_query.to(kind), mask=inside)
        tl.store(of_keys + at, of_key.to(kind), mask=inside)
        tl.store(of_values + at, of_value.to(kind), mask=inside)


def fits(query: Tensor, spec: AttentionSpec) -> bool:
    """Return whether these kernels compute attention of this size, ``[T, B, C, N]``."""
    steps, _, channels, tokens = query.shape[-4:]
    width = channels // spec.heads
    if width > MAX_WIDTH:
        return False
    if spec.layout != "tokens":
        return steps <= MAX_STEPS
    return tokens <= MAX_TOKENS and _side(tokens) * _side(width) <= MAX_TILE


@on_its_device
def attend_fire(
    query: Tensor, key: Tensor, value: Tensor, spec: AttentionSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``operators.attend_fire``."""
    rows = [_as_rows(tensor) for tensor in (query, key, value)]
    _, clips, tokens, channels = shape = rows[0].shape
    spikes = query.new_empty(shape)
    packed = query.new_empty((3, *shape), dtype=torch.uint8)
    grid, sizes = _grid(tokens, channels, clips, spec)
    counts = query.new_empty(grid, dtype=torch.int32)
    _attend_fire[grid](
        *rows, spikes, packed, counts, spikes.numel(), *shape, spec.heads, 1.0 / spec.tau,
        spec.threshold, INTERLEAVED=spec.layout == "interleaved", **sizes, enable_fp_fusion=False,
    )  # fmt: skip
    count = add_counts(counts, spikes.numel())
    return spikes.transpose(2, 3), count, packed.transpose(3, 4)


@on_its_device
def attend_fire_backward(
    grad: Tensor, packed: Tensor, spec: AttentionSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``operators.attend_fire_backward``."""
    rows = _as_rows(grad)
    spikes = _as_rows(packed)
    steps, clips, tokens, channels = rows.shape
    out = [torch.empty_like(rows) for _ in range(3)]
    grid, sizes = _grid(tokens, channels, clips, spec)
    over_tokens = spec.layout == "tokens"
    mixed = None if over_tokens else torch.empty_like(rows, dtype=torch.float32)
    # float32 multiplies in TF32 only where torch's own products may. bfloat16 holds less than TF32.
    rounded = grad.dtype == torch.bfloat16 or torch.backends.cuda.matmul.allow_tf32
    shape = (steps, clips, tokens, channels, spec.heads)
    _attend_fire_backward[grid](
        rows, *spikes, mixed, *out, *shape, 1.0 / spec.tau, spec.threshold, spec.slope,
        INTERLEAVED=spec.layout == "interleaved", PRECISION="tf32" if rounded else "ieee",
        **sizes, enable_fp_fusion=False,
    )  # fmt: skip
    if not over_tokens:
        names = ("WIDTH", "ROWS", "COLUMNS", "num_warps", "num_stages")
        sides = {name: sizes[name] for name in names}
        _steps_backward[grid](mixed, *spikes, *out, *shape, **sides)
    of_query, of_key, of_value = (tensor.transpose(2, 3) for tensor in out)
    return of_query, of_key, of_value


def _as_rows(features: Tensor) -> Tensor:
    """Return ``[..., C, N]`` as ``[..., N, C]``, contiguous; no copy if C is innermost already."""
    return features.transpose(-2, -1).contiguous()


def _grid(
    tokens: int, channels: int, clips: int, spec: AttentionSpec
) -> tuple[tuple[int, int], dict[str, int]]:
    """Return the grid of programs, and the sizes that a program is compiled for."""
    width, over_tokens = channels // spec.heads, spec.layout == "tokens"
    rows, columns = _side(tokens), _side(width)
    if not over_tokens:
        rows = min(rows, BLOCK)
    sizes = {
        "OVER_TOKENS": over_tokens,
        "WIDTH": width,
        "CHANNELS_FIRST": width <= tokens,
        "ROWS": rows,
        "COLUMNS": columns,
        "num_warps": 4 if rows * columns <= 1024 else 8,
        # Load the spikes of the next time step while this step is computed, and no more steps: each
        # takes shared memory for all its tiles.
        "num_stages": 2,
    }
    return (clips * spec.heads, triton.cdiv(tokens, rows)), sizes


def _side(count: int) -> int:
    """Return the side of the tile that holds ``count`` values: a power of 2, 16 or more."""
    return int(max(16, triton.next_power_of_2(count)))
