"""Attention with the neurons on its output as a torch operator, like those of ``operators.py``."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from avsnn.models.kernels import attention_products
from avsnn.models.kernels.dispatch import kernels_for_attention
from avsnn.models.kernels.layer_spec import AttentionSpec
from avsnn.models.kernels.registration import (
    operator,
    refuse_second_derivative,
    without_gradient,
)


@operator()
def attend_fire(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    layout: str,
    tau: float,
    threshold: float,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the spikes of neurons whose current is the attention of spikes.

    Args:
        query: spikes ``[T, B, C, N]``.
        key: as ``query``.
        value: as ``query``.
        heads: number of heads. This argument and the following arguments are the fields of an
            ``AttentionSpec``, because a torch operator does not take an ``AttentionSpec``.
        layout: ``tokens``, ``steps`` or ``interleaved``.
        tau: membrane time constant, in steps.
        threshold: membrane potential at which a neuron fires.
        slope: slope of the surrogate.

    Returns:
        spikes ``[T, B, C, N]``; ``[2]`` int64, as ``fire`` counts; and query, key and value as
        bytes, ``[3, T, B, C, N]``, which are saved for backward. No gradient flows through the last
        two results.
    """
    spec = AttentionSpec(heads, layout, tau, threshold, slope)
    result: tuple[Tensor, Tensor, Tensor] = _kernels(query, spec).attend_fire(
        query, key, value, spec
    )
    return result


@operator()
def attend_fire_backward(
    grad: Tensor,
    packed: Tensor,
    heads: int,
    layout: str,
    tau: float,
    threshold: float,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value from the gradient of the spikes.

    The arguments are those of ``attend_fire``, with ``grad``, the gradient of the spikes, and
    ``packed``, the third result of ``attend_fire``.
    """
    spec = AttentionSpec(heads, layout, tau, threshold, slope)
    result: tuple[Tensor, Tensor, Tensor] = _kernels(grad, spec).attend_fire_backward(
        grad, packed, spec
    )
    return result


def _kernels(features: Tensor, spec: AttentionSpec) -> ModuleType:
    return kernels_for_attention(features, spec) or attention_products


def _fake_attend_fire(
    query: Tensor, key: Tensor, value: Tensor, heads: int, layout: str, *rest: float
) -> tuple[Tensor, Tensor, Tensor]:
    spec = AttentionSpec(heads, layout, *rest)
    packed = _empty(query.expand(3, *query.shape), spec, torch.uint8)
    return _empty(query, spec), query.new_empty(2, dtype=torch.int64), packed


def _fake_attend_fire_backward(
    grad: Tensor, packed: Tensor, heads: int, layout: str, *rest: float
) -> tuple[Tensor, Tensor, Tensor]:
    spec = AttentionSpec(heads, layout, *rest)
    return _empty(grad, spec), _empty(grad, spec), _empty(grad, spec)


def _empty(features: Tensor, spec: AttentionSpec, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty tensor like ``features``, in the memory format of the kernels."""
    if kernels_for_attention(features, spec) is None:
        return features.new_empty(features.shape, dtype=dtype)
    return features.mT.new_empty(features.mT.shape, dtype=dtype).mT


def _save_for_attend_fire(ctx: Any, inputs: Any, output: Any) -> None:
    _, count, packed = output
    without_gradient(ctx, count, packed)
    ctx.save_for_backward(packed)
    ctx.spec = inputs[3:]


def _backward_of_attend_fire(
    ctx: Any, grad: Tensor | None, *_rest: Any
) -> tuple[Tensor | None, ...]:
    refuse_second_derivative()
    if grad is None:
        return (None,) * 8
    (packed,) = ctx.saved_tensors
    return *attend_fire_backward(grad, packed, *ctx.spec), *(None,) * len(ctx.spec)


torch.library.register_fake("avsnn::attend_fire", _fake_attend_fire)
torch.library.register_fake("avsnn::attend_fire_backward", _fake_attend_fire_backward)
torch.library.register_autograd(
    "avsnn::attend_fire", _backward_of_attend_fire, setup_context=_save_for_attend_fire
)
