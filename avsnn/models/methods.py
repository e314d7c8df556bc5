"""The methods: how each network is put together from a fusion method, or from a single stream."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from avsnn.models import builders
from avsnn.models.fusion import (
    CrossModalResidual,
    CurrentIntegration,
    Fusion,
    NoFusion,
    SpikingCrossAttention,
    WeightAttention,
)
from avsnn.models.fusion_learned import GatedResidual, StepAttention, TokenMaskAttention
from avsnn.models.patch_split import PATCH_SPLITS, PatchSplit
from avsnn.models.readout import READOUTS, ConcatReadout, StreamReadout, SumReadout
from avsnn.models.registry import METHODS, MethodError
from avsnn.models.spikformer import AudioSpikformer, AudioVisualSpikformer, VisualSpikformer
from avsnn.pydantic_base import StrictModel

if TYPE_CHECKING:
    from torch import nn

    from avsnn.models.registry import Sizes
    from avsnn.models.settings import ModelSettings

__all__ = ["METHODS", "OneStream", "TwoStreams"]


def _patch_split(settings: ModelSettings, inputs: int) -> PatchSplit:
    return PatchSplit(
        inputs=inputs,
        channels=settings.channels,
        divisors=PATCH_SPLITS[settings.patch_split],
        neuron=builders.neuron_factory(settings),
    )


def _check_own_settings(fusion: type[Fusion]) -> None:
    """Refuse settings of a method's own that a person could not use.

    Raises:
        MethodError: the class would not refuse unknown keys, or a setting has no default.
    """
    own = fusion.Settings
    if own is None:
        return
    if not isinstance(own, type) or not issubclass(own, StrictModel):
        raise MethodError(
            f"{fusion.__name__}.Settings must be a class that inherits from "
            "avsnn.pydantic_base.StrictModel"
        )
    for name, field in own.model_fields.items():
        if field.is_required():
            raise MethodError(f"{fusion.__name__}.Settings: the setting {name} needs a default")


@dataclass(frozen=True)
class TwoStreams:
    """An audio-visual network: a fusion method, and the readout if the method has its own readout.

    Attributes:
        fusion: class of the fusion method.
        readout: class of the readout; None if the ``fuse`` setting chooses the readout.

    Raises:
        MethodError: ``fusion`` is no class of a fusion method, or lacks a part of a fusion method.
    """

    fusion: type[Fusion]
    readout: type[SumReadout] | type[ConcatReadout] | type[StreamReadout] | None = None

    def __post_init__(self) -> None:
        fusion = self.fusion
        if not isinstance(fusion, type) or not issubclass(fusion, Fusion):
            raise MethodError(
                f"TwoStreams takes a class that inherits from avsnn.models.fusion.Fusion, not "
                f"{fusion!r}"
            )
        if missing := sorted(fusion.__abstractmethods__):
            raise MethodError(
                f"the class {fusion.__name__} has no method {' and no '.join(missing)}"
            )
        _check_own_settings(fusion)
        try:
            inspect.signature(fusion.from_settings).bind(None, tokens=None)
        except TypeError as error:
            raise MethodError(
                f"{fusion.__name__}.from_settings must take (cls, settings, *, tokens): {error}"
            ) from None
        try:
            inspect.signature(fusion.forward).bind(None, None, None)
        except TypeError as error:
            raise MethodError(
                f"{fusion.__name__}.forward must take (self, audio, visual): {error}"
            ) from None

    @property
    def can_align(self) -> bool:
        """Whether the fusion method gives residuals that can be aligned."""
        return self.fusion.can_align

    @property
    def own_settings(self) -> type[StrictModel] | None:
        """Class of the settings that only the fusion method has."""
        return self.fusion.Settings

    @property
    def takes_options(self) -> bool:
        """Whether the fusion method takes settings of its own that no class describes."""
        return self.fusion.takes_options

    @property
    def chooses_readout(self) -> bool:
        """Whether the ``fuse`` setting chooses the readout."""
        return self.readout is None

    def network(self, settings: ModelSettings, sizes: Sizes) -> AudioVisualSpikformer:
        """Build the audio-visual network."""
        readout = self.readout or READOUTS[settings.fuse]
        return AudioVisualSpikformer(
            steps=settings.steps,
            audio_patch=_patch_split(settings, sizes.audio_channels),
            visual_patch=_patch_split(settings, sizes.visual_channels),
            fusion=self.fusion.from_settings(settings, tokens=sizes.tokens),
            audio_mlp=builders.mlp(settings),
            visual_mlp=builders.mlp(settings),
            readout=readout(channels=settings.channels, classes=sizes.classes),
            aligned=settings.alignment,
        )


@dataclass(frozen=True)
class OneStream:
    """A uni-modal network.

    Attributes:
        spikformer: class of the network.
        channels_of: field of ``Sizes`` that holds the channels of the image that the network reads.
        can_align: false, because one stream has no cross-modal residual.
        own_settings: None, because a uni-modal network has no fusion method.
        takes_options: false, for the same reason.
        chooses_readout: false, because there is no second stream to join.
    """

    spikformer: type[AudioSpikformer] | type[VisualSpikformer]
    channels_of: str
    can_align: bool = False
    own_settings: None = None
    takes_options: bool = False
    chooses_readout: bool = False

    def network(self, settings: ModelSettings, sizes: Sizes) -> nn.Module:
        """Build the uni-modal network."""
        return self.spikformer(
            steps=settings.steps,
            patch=_patch_split(settings, getattr(sizes, self.channels_of)),
            attention=builders.spatial_attention(settings),
            mlp=builders.mlp(settings),
            channels=settings.channels,
            classes=sizes.classes,
        )


METHODS.update(
    {
        "s-cmrl": TwoStreams(CrossModalResidual),
        "add": TwoStreams(NoFusion, SumReadout),
        "concat": TwoStreams(NoFusion, ConcatReadout),
        "audio": OneStream(AudioSpikformer, "audio_channels"),
        "visual": OneStream(VisualSpikformer, "visual_channels"),
        "weight-attention": TwoStreams(WeightAttention),
        "sca": TwoStreams(SpikingCrossAttention),
        "cmci": TwoStreams(CurrentIntegration, StreamReadout),
        "gated": TwoStreams(GatedResidual),
        "cmqka": TwoStreams(TokenMaskAttention),
        "taaf": TwoStreams(StepAttention),
    }
)
METHODS.protect()
