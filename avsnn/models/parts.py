"""Neurons and attention as the settings ask for them: what fusion methods are made from."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from avsnn.models.attention import (
    QUERY_SIDES,
    TEMPORAL_LAYOUTS,
    SpatialMix,
    SpatioTemporalAttention,
)
from avsnn.models.layers import SpikingMLP, TokenNorm
from avsnn.models.neuron import LIF

if TYPE_CHECKING:
    from collections.abc import Callable

    from avsnn.models.attention import SpikingAttention
    from avsnn.models.layers import NeuronFactory
    from avsnn.models.settings import ModelSettings


def neuron(settings: ModelSettings, *, threshold: float | None = None) -> NeuronFactory:
    """Make a maker of LIF layers, with the common threshold unless another is given."""
    return partial(
        LIF,
        tau=settings.tau,
        threshold=settings.threshold if threshold is None else threshold,
        detach_membrane=settings.detach_membrane,
        reset=settings.reset,
        surrogate=settings.surrogate,
        slope=settings.surrogate_slope,
        learn_tau=settings.learn_tau,
    )


def mlp(settings: ModelSettings) -> SpikingMLP:
    """Make the MLP of one stream."""
    return SpikingMLP(channels=settings.channels, ratio=settings.mlp_ratio, neuron=neuron(settings))


def norm(settings: ModelSettings, *, wanted: bool) -> nn.Module:
    """Make a batch norm of tokens, or nothing."""
    return TokenNorm(settings.channels) if wanted else nn.Identity()


def attention_over(settings: ModelSettings, mix: nn.Module) -> SpikingAttention:
    """Attention of any kind, by what it mixes."""
    return QUERY_SIDES[settings.query](
        channels=settings.channels,
        heads=settings.heads,
        neuron=neuron(settings),
        norm=norm(settings, wanted=settings.attention_norm),
        lif=neuron(settings, threshold=settings.attention_threshold)(),
        mix=mix,
    )


def spatial_attention(settings: ModelSettings) -> SpikingAttention:
    """Attention over tokens."""
    return attention_over(settings, SpatialMix())


def temporal_attention(settings: ModelSettings) -> SpikingAttention:
    """Attention over time, in the layout the settings name."""
    return attention_over(settings, TEMPORAL_LAYOUTS[settings.temporal_layout]())


def spatio_temporal_attention(settings: ModelSettings) -> SpatioTemporalAttention:
    """Both, multiplied."""
    return SpatioTemporalAttention(
        spatial=spatial_attention(settings), temporal=temporal_attention(settings)
    )


#: Cross-modal attention by its name in the settings.
ATTENTIONS: dict[str, Callable[[ModelSettings], nn.Module]] = {
    "spatio-temporal": spatio_temporal_attention,
    "spatial": spatial_attention,
    "temporal": temporal_attention,
}
