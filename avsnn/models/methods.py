"""The registry of methods: every network that can be built, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from avsnn.models import parts
from avsnn.models.fusion import (
    CrossModalResidual,
    CurrentIntegration,
    NoFusion,
    SpikingCrossAttention,
    WeightAttention,
)
from avsnn.models.patch_split import PATCH_SPLITS, PatchSplit
from avsnn.models.readout import READOUTS, ConcatReadout, StreamReadout, SumReadout
from avsnn.models.spikformer import AudioSpikformer, AudioVisualSpikformer, VisualSpikformer

if TYPE_CHECKING:
    from torch import nn

    from avsnn.models.fusion import Fusion
    from avsnn.models.settings import ModelSettings


class Sizes(NamedTuple):
    """What the data decide: number of classes, image channels, and tokens where known."""

    classes: int
    audio_channels: int
    visual_channels: int
    tokens: int | None


class Method(Protocol):
    """What stands behind a name in the registry."""

    @property
    def can_align(self) -> bool:
        """Whether the semantic alignment loss can be used with it."""

    @property
    def chooses_readout(self) -> bool:
        """Whether the ``fuse`` setting says how the streams are joined."""

    @property
    def summary(self) -> str:
        """One sentence for people."""

    def network(self, settings: ModelSettings, sizes: Sizes) -> nn.Module:
        """Build it."""


def _patch_split(settings: ModelSettings, inputs: int) -> PatchSplit:
    return PatchSplit(
        inputs=inputs,
        channels=settings.channels,
        divisors=PATCH_SPLITS[settings.patch_split],
        neuron=parts.neuron(settings),
    )


def _first_line(documented: type) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


@dataclass(frozen=True)
class TwoStreams:
    """A fusion method, and its readout where it has one of its own."""

    fusion: type[Fusion]
    readout: type[SumReadout] | type[ConcatReadout] | type[StreamReadout] | None = None

    @property
    def can_align(self) -> bool:
        """As its fusion says."""
        return self.fusion.can_align

    @property
    def chooses_readout(self) -> bool:
        """Only without a readout of its own."""
        return self.readout is None

    @property
    def summary(self) -> str:
        """First line of the fusion's docstring."""
        return _first_line(self.fusion)

    def network(self, settings: ModelSettings, sizes: Sizes) -> AudioVisualSpikformer:
        """Build an audio-visual network."""
        readout = self.readout or READOUTS[settings.fuse]
        return AudioVisualSpikformer(
            steps=settings.steps,
            audio_patch=_patch_split(settings, sizes.audio_channels),
            visual_patch=_patch_split(settings, sizes.visual_channels),
            fusion=self.fusion.from_settings(settings, tokens=sizes.tokens),
            audio_mlp=parts.mlp(settings),
            visual_mlp=parts.mlp(settings),
            readout=readout(channels=settings.channels, classes=sizes.classes),
            aligned=settings.alignment,
        )


@dataclass(frozen=True)
class OneStream:
    """A uni-modal network, and which of the image channel counts is its own."""

    spikformer: type[AudioSpikformer] | type[VisualSpikformer]
    channels_of: str
    can_align: bool = False
    chooses_readout: bool = False

    @property
    def summary(self) -> str:
        """First line of the network's docstring."""
        return _first_line(self.spikformer)

    def network(self, settings: ModelSettings, sizes: Sizes) -> nn.Module:
        """Build a uni-modal network."""
        return self.spikformer(
            steps=settings.steps,
            patch=_patch_split(settings, getattr(sizes, self.channels_of)),
            attention=parts.spatial_attention(settings),
            mlp=parts.mlp(settings),
            channels=settings.channels,
            classes=sizes.classes,
        )


METHODS: dict[str, Method] = {
    "s-cmrl": TwoStreams(CrossModalResidual),
    "add": TwoStreams(NoFusion, SumReadout),
    "concat": TwoStreams(NoFusion, ConcatReadout),
    "audio": OneStream(AudioSpikformer, "audio_channels"),
    "visual": OneStream(VisualSpikformer, "visual_channels"),
    "weight-attention": TwoStreams(WeightAttention),
    "sca": TwoStreams(SpikingCrossAttention),
    "cmci": TwoStreams(CurrentIntegration, StreamReadout),
}
