"""Where cross-modal attention looks: how much attention each token of the other stream gets."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from avsnn.models.attention import (
    BiasedSpatialMix,
    OtherQueryAttention,
    SpatialMix,
    SpatioTemporalAttention,
    SpikingAttention,
)
from avsnn.models.fusion import AttentionResidual, SpikingCrossAttention
from avsnn.models.watching import watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

Stream = Literal["audio", "visual"]
_OTHER: dict[Stream, Stream] = {"audio": "visual", "visual": "audio"}


def attention_by_keys(model: nn.Module) -> dict[Stream, SpikingAttention]:
    """Return the cross-modal attention over tokens, by the stream whose tokens are the keys.

    Returns:
        the empty dictionary for a network without cross-modal attention over tokens: a network of
        one modality, a fusion without attention, attention over time steps alone, or a mask of
        tokens (cmqka), whose queries meet keys at the same place only.
    """
    fusion = getattr(model, "fusion", None)
    if not isinstance(fusion, AttentionResidual | SpikingCrossAttention):
        return {}
    blocks: tuple[tuple[Stream, nn.Module], ...] = (
        ("audio", fusion.audio),
        ("visual", fusion.visual),
    )
    found: dict[Stream, SpikingAttention] = {}
    for own, block in blocks:
        attention = block.spatial if isinstance(block, SpatioTemporalAttention) else block
        if not isinstance(attention, SpikingAttention):
            continue
        if isinstance(attention.mix, SpatialMix | BiasedSpatialMix):
            keys = own if isinstance(attention, OtherQueryAttention) else _OTHER[own]
            found[keys] = attention
    return found


@contextmanager
def token_attention(model: nn.Module) -> Iterator[dict[Stream, list[Tensor]]]:
    """Measure how much attention each token gets from the other stream while the context is open.

    The context yields, for each stream whose tokens are keys, a list that grows by one tensor
    ``[B, N]`` with every call of the network. A row holds the sum of ``Q K^T`` over heads, time
    steps and queries, divided by its total, so that the sum of a row is 1. The row of a clip whose
    queries or keys never fire together is 0. Of the visual block of SCA, ``Q K^T`` is taken before
    the position bias and before the neurons on the scores.

    Args:
        model: the network; hooks watch its query layers and key layers, and change no result.
    """
    watched = attention_by_keys(model)
    maps: dict[Stream, list[Tensor]] = {stream: [] for stream in watched}
    # The sum over queries of each channel; the layer of the query runs before that of the key.
    queries: dict[Stream, Tensor] = {}

    def keep(stream: Stream, _inputs: object, spikes: Tensor) -> None:
        queries[stream] = spikes.float().sum(-1)

    def add(stream: Stream, _inputs: object, spikes: Tensor) -> None:
        maps[stream].append(key_shares(queries.pop(stream), spikes.float()))

    with (
        watching({stream: attention.query for stream, attention in watched.items()}, keep),
        watching({stream: attention.key for stream, attention in watched.items()}, add),
    ):
        yield maps


def key_shares(query: Tensor, key: Tensor) -> Tensor:
    """Return the share of attention of each key token, ``[B, N]``.

    A head multiplies only channels of the same number, so the sum over heads is the sum over all
    channels.

    Args:
        query: spikes of the query, summed over tokens, ``[T, B, C]``.
        key: spikes of the key, ``[T, B, C, N]``.
    """
    products = (query.unsqueeze(-1) * key).sum(dim=(0, 2))
    return products / products.sum(-1, keepdim=True).clamp(min=1)
