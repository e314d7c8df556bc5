"""Operations on tokens ``[..., C, N]`` that leave the channels innermost in memory.

Kernels for GPUs read and write activations with the channels innermost, as cuDNN does
(``channels_last``); all other kernels keep the tokens innermost. The functions here compute with
either and give the same memory format back, also in the backward pass, so no tensor is transposed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def has_channels_innermost(features: Tensor) -> bool:
    """Return whether ``[..., C, N]`` lies in memory as a contiguous ``[..., N, C]``.

    The answer is no where both formats are the same, as for one token.
    """
    return not features.is_contiguous() and features.mT.is_contiguous()


def token_mean(features: Tensor) -> Tensor:
    """Return the mean of ``[..., C, N]`` over tokens, ``[..., C]``."""
    if has_channels_innermost(features):
        # The gradient of a mean gets the format of the tensor of which the mean was taken.
        return features.mT.mean(dim=-2)
    return features.mean(dim=-1)


def times_step_mean(over_tokens: Tensor, features: Tensor) -> Tensor:
    """Return ``[T, B, C]`` times the mean of ``[T, B, C, N]`` over T, ``[T, B, C, N]``."""
    if has_channels_innermost(features):
        return (over_tokens.unsqueeze(2) * features.mT.mean(dim=0)).mT
    return over_tokens.unsqueeze(3) * features.mean(dim=0)


def linear_along_channels(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``[..., C', N]`` of ``[..., C, N]`` with the channels innermost: one matrix product.

    Args:
        features: ``[..., C, N]`` for which ``has_channels_innermost`` is true.
        weight: ``[C', C]``.
        bias: ``[C']``, or None.
    """
    rows = features.mT
    out = functional.linear(rows.flatten(0, -2), weight, bias)
    return out.view(*rows.shape[:-1], -1).mT
