"""The products of spiking attention in plain torch, and their gradients.

There is no softmax: attention is ``(Q K^T) V * 0.25`` for each head, over tokens or over time
steps. Q, K and V are spikes, so every product is a whole number, and the order of the two products
does not change the result. Head h holds the channels ``h * D`` to ``(h + 1) * D``, with
``D = C / heads``. The kernels for GPUs (``gpu_attention.py``) give the same values to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avsnn.models.kernels import reference

if TYPE_CHECKING:
    from avsnn.models.kernels.layer_spec import AttentionSpec

SCALE = 0.25


def product(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return ``(Q K^T) V * 0.25`` of spikes ``[..., D, L]``; attention is over L.

    The two products are computed in the cheaper order. Both orders are exact in float32 as long as
    L * D < 2 ** 24.
    """
    if _channels_first(query):
        return (value @ key.mT).mul_(SCALE) @ query
    return value @ (key.mT @ query).mul_(SCALE)


def product_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value from the gradient of ``product``."""
    if _channels_first(query):
        across = (value @ key.mT).mul_(SCALE)
        back = (grad @ query.mT).mul_(SCALE)
        return across.mT @ grad, back.mT @ value, back @ key
    scores = (key.mT @ query).mul_(SCALE)
    back = (value.mT @ grad).mul_(SCALE)
    return key @ back, query @ back.mT, grad @ scores.mT


def _channels_first(query: Tensor) -> bool:
    D, L = query.shape[-2:]
    return D <= L


def to_matrices(split: Tensor, layout: str) -> Tensor:
    """Return ``[T, B, heads, D, N]`` as matrices ``[..., D, L]`` for ``product``.

    L is N for the layout ``tokens``, and T for the other layouts (``AttentionSpec``).
    """
    return split if layout == "tokens" else split.permute(1, 2, 4, 3, 0)


def from_matrices(matrices: Tensor, layout: str) -> Tensor:
    """Return the result of ``product`` as ``[T, B, heads, D, N]``: undo ``to_matrices``."""
    return matrices if layout == "tokens" else matrices.permute(4, 0, 1, 3, 2)


def split_heads(features: Tensor, heads: int) -> Tensor:
    """Return ``[T, B, C, N]`` as a view ``[T, B, heads, D, N]``."""
    T, B, C, N = features.shape
    return features.view(T, B, heads, C // heads, N)


def join_heads(split: Tensor, layout: str) -> Tensor:
    """Return the attention of heads ``[T, B, heads, D, N]`` as ``[T, B, C, N]``.

    The layout ``interleaved`` reinterprets ``[heads, T]`` as ``[T, heads]``: the published code
    does not move the head axis behind the time axis after attention over time steps. The result at
    step t is therefore not the attention of step t.
    """
    T, B, heads, D, N = split.shape
    if layout == "interleaved":
        split = split.permute(1, 2, 0, 3, 4).reshape(B, T, heads, D, N).transpose(0, 1)
    return split.flatten(2, 3).contiguous()


def _undo_join_heads(features: Tensor, heads: int, layout: str) -> Tensor:
    split = split_heads(features, heads)
    T, B, _, D, N = split.shape
    if layout == "interleaved":
        split = split.transpose(0, 1).reshape(B, heads, T, D, N).permute(2, 0, 1, 3, 4)
    return split


def attend(query: Tensor, key: Tensor, value: Tensor, spec: AttentionSpec) -> Tensor:
    """Return the attention of spikes ``[T, B, C, N]`` each, ``[T, B, C, N]``."""
    q, k, v = (to_matrices(split_heads(x, spec.heads), spec.layout) for x in (query, key, value))
    return join_heads(from_matrices(product(q, k, v), spec.layout), spec.layout)


def attend_fire(
    query: Tensor, key: Tensor, value: Tensor, spec: AttentionSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``operators.attend_fire`` in plain torch."""
    q, k, v = (reference.as_input(x) for x in (query, key, value))
    current = attend(q, k, v, spec)
    spikes, count = reference.fire(current, None, None, spec.neurons(len(current)))
    packed = torch.stack([x.to(torch.uint8) for x in (query, key, value)])
    return spikes.to(query.dtype), count, packed


def attend_fire_backward(
    grad: Tensor, packed: Tensor, spec: AttentionSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``operators.attend_fire_backward`` in plain torch."""
    wide = reference.as_input(grad)
    query, key, value = packed.to(wide.dtype).unbind()
    current = attend(query, key, value, spec)
    wide = reference.fire_backward(wide, current, None, None, None, spec.neurons(len(grad)))[0]
    split = _undo_join_heads(wide, spec.heads, spec.layout)
    q, k, v = (to_matrices(split_heads(x, spec.heads), spec.layout) for x in (query, key, value))
    grads = product_backward(to_matrices(split, spec.layout), q, k, v)
    of_query, of_key, of_value = (
        from_matrices(x, spec.layout).flatten(2, 3).contiguous().to(grad.dtype) for x in grads
    )
    return of_query, of_key, of_value
