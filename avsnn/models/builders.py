"""Build neurons, MLPs and attention as the settings ask for them.

Fusion methods and networks are put together from these pieces.
"""

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
from avsnn.models.batch_norm import TokenNorm
from avsnn.models.layers import SpikingMLP
from avsnn.models.neuron import LIF

if TYPE_CHECKING:
    from collections.abc import Callable

    from avsnn.models.attention import SpikingAttention
    from avsnn.models.neuron import NeuronFactory
    from avsnn.models.settings import ModelSettings


def neuron_factory(settings: ModelSettings, *, threshold: float | None = None) -> NeuronFactory:
    """Return a function that builds a new LIF layer at every call.

    Args:
        settings: the model.
        threshold: firing threshold; None is the common threshold of the settings.
    """
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
    """Build the MLP of one stream."""
    return SpikingMLP(
        channels=settings.channels, ratio=settings.mlp_ratio, neuron=neuron_factory(settings)
    )


def token_norm(settings: ModelSettings, *, wanted: bool) -> nn.Module:
    """Build a batch norm of tokens if ``wanted``, otherwise a layer that changes nothing."""
    return TokenNorm(settings.channels) if wanted else nn.Identity()


def attention_with(settings: ModelSettings, mix: nn.Module) -> SpikingAttention:
    """Build spiking attention that combines query, key and value with ``mix``."""
    return QUERY_SIDES[settings.query](
        channels=settings.channels,
        heads=settings.heads,
        neuron=neuron_factory(settings),
        norm=token_norm(settings, wanted=settings.attention_norm),
        lif=neuron_factory(settings, threshold=settings.attention_threshold)(),
        mix=mix,
    )


def spatial_attention(settings: ModelSettings) -> SpikingAttention:
    """Build attention over tokens."""
    return attention_with(settings, SpatialMix())


def temporal_attention(settings: ModelSettings) -> SpikingAttention:
    """Build attention over time steps, with the layout that the settings name."""
    return attention_with(settings, TEMPORAL_LAYOUTS[settings.temporal_layout]())


def spatio_temporal_attention(settings: ModelSettings) -> SpatioTemporalAttention:
    """Build the product of attention over tokens and attention over time steps."""
    return SpatioTemporalAttention(
        spatial=spatial_attention(settings), temporal=temporal_attention(settings)
    )


#: Functions that build cross-modal attention, by the value of the ``attention`` setting.
ATTENTIONS: dict[str, Callable[[ModelSettings], nn.Module]] = {
    "spatio-temporal": spatio_temporal_attention,
    "spatial": spatial_attention,
    "temporal": temporal_attention,
}
