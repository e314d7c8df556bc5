"""Fusion methods: how the audio and the visual stream of tokens meet.

Every fusion method is a ``Fusion``: its ``forward`` takes the tokens of both modalities,
``[T, B, C, N]`` each, and returns ``Fused``. A new method is one class and one line: in a file of
the user (docs/add-a-fusion-method.md), or here and in ``methods.py``. The methods here are S-CMRL
and the methods that arXiv 2502.12488 compares with S-CMRL; ``fusion_learned.py`` holds later ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from avsnn.models import builders
from avsnn.models.attention import BiasedSpatialMix, LearnedBias, RandomBias, SpikingAttention
from avsnn.models.layers import ChannelLinear, SpikingMLP, published_linear
from avsnn.models.token_layout import token_mean

if TYPE_CHECKING:
    from avsnn.models.neuron import LIF
    from avsnn.models.settings import ModelSettings
    from avsnn.pydantic_base import StrictModel


class Fused(NamedTuple):
    """The streams after fusion, ``[T, B, C, N]`` each, and weights.

    Attributes:
        audio: audio stream, the input of the audio MLP.
        visual: visual stream, the input of the visual MLP.
        audio_residual: output of the audio block of the method; None if there is no block.
        visual_residual: output of the visual block of the method; None if there is no block.
        third: a third stream that goes straight to the head; None if there is none.
        step_weights: weights ``[T, B]`` of the time steps in the training loss, whose mean over T
            is 1; None if the loss is that of the answer alone.
    """

    audio: Tensor
    visual: Tensor
    audio_residual: Tensor | None = None
    visual_residual: Tensor | None = None
    third: Tensor | None = None
    step_weights: Tensor | None = None


class Fusion(nn.Module, ABC):
    """Base of every fusion method."""

    #: Whether the semantic alignment loss can align the residuals.
    can_align: ClassVar[bool] = False
    #: Class of the settings that only this method has (``settings.custom``); None if none.
    Settings: ClassVar[type[StrictModel] | None] = None
    #: Whether a method without the class above reads any ``settings.custom``, as earlier plugins.
    takes_options: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Build the fusion method from settings.

        Args:
            settings: the model.
            tokens: number N of tokens, or None if the caller does not know N.
        """

    @abstractmethod
    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Fuse the streams, ``[T, B, C, N]`` each."""


class NoFusion(Fusion):
    """The plain audio-visual baseline: the streams meet only in the head."""

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Build the baseline, which needs no setting."""
        return cls()

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Return both streams unchanged."""
        return Fused(audio, visual)


class Alignment(nn.Module):
    """Turn a residual into spikes for semantic alignment: ``LIF(norm(Linear(r)))`` over channels.

    arXiv 2502.12488, section 3.4, has no norm. Saved for backward: the residual and the potentials
    of the neurons, each ``[T, B, C, N]``; with a norm, also its input, ``[T, B, C, N]``.
    """

    def __init__(self, *, channels: int, norm: nn.Module, lif: LIF) -> None:
        super().__init__()
        self.linear = ChannelLinear(inputs=channels, outputs=channels)
        self.norm = norm
        self.lif = lif

    def forward(self, residual: Tensor) -> Tensor:
        """Map a real residual ``[T, B, C, N]`` to spikes ``[T, B, C, N]``."""
        return self.lif(self.norm(self.linear(residual)))  # type: ignore[no-any-return]


class AttentionResidual(Fusion):
    """Base of methods that add a residual to each stream: its attention to the other stream.

    Args:
        audio: attention of the audio stream, ``(own, other) -> residual``.
        visual: attention of the visual stream, ``(own, other) -> residual``.
        audio_alignment: layer on the audio residual before the sum; ``nn.Identity()`` for none.
        visual_alignment: layer on the visual residual before the sum; ``nn.Identity()`` for none.
    """

    can_align = True

    def __init__(
        self,
        *,
        audio: nn.Module,
        visual: nn.Module,
        audio_alignment: nn.Module,
        visual_alignment: nn.Module,
    ) -> None:
        super().__init__()
        self.audio = audio
        self.visual = visual
        self.audio_alignment = audio_alignment
        self.visual_alignment = visual_alignment

    @staticmethod
    def blocks(settings: ModelSettings) -> dict[str, nn.Module]:
        """Build the four arguments with the attention and the alignment that the settings name."""
        attention = builders.ATTENTIONS[settings.attention]
        neuron = builders.neuron_factory(settings, threshold=settings.alignment_threshold)

        def alignment() -> nn.Module:
            if not settings.alignment:
                return nn.Identity()
            norm = builders.token_norm(settings, wanted=settings.alignment_norm)
            return Alignment(channels=settings.channels, norm=norm, lif=neuron())

        return {
            "audio": attention(settings),
            "visual": attention(settings),
            "audio_alignment": alignment(),
            "visual_alignment": alignment(),
        }

    def residuals(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the audio and the visual residual of the streams; all are ``[T, B, C, N]``."""
        return (
            self.audio_alignment(self.audio(audio, visual)),
            self.visual_alignment(self.visual(visual, audio)),
        )


class CrossModalResidual(AttentionResidual):
    """S-CMRL: each stream gains ``alpha`` times a residual, its attention to the other stream.

    ``a' = a + alpha * r(a; v)``, ``v' = v + alpha * r(v; a)`` (arXiv 2502.12488, section 3.3).
    Saved for backward: what attention and alignment save; the sums save nothing.

    Args:
        alpha: factor of the residuals.
        blocks: the arguments of ``AttentionResidual``.
    """

    def __init__(self, *, alpha: float, **blocks: nn.Module) -> None:
        super().__init__(**blocks)
        self.alpha = alpha

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Build S-CMRL with the attention and the alignment that the settings name."""
        return cls(alpha=settings.alpha, **cls.blocks(settings))

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Fuse; both residuals are computed from the streams before fusion."""
        r_audio, r_visual = self.residuals(audio, visual)
        return Fused(
            torch.add(audio, r_audio, alpha=self.alpha),
            torch.add(visual, r_visual, alpha=self.alpha),
            r_audio,
            r_visual,
        )


class StreamWeight(nn.Module):
    """Scale a stream by one weight per step and clip, a linear function of both token means.

    Saved for backward: the scaled stream, ``[T, B, C, N]``, and vectors for each step and clip.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.mix = published_linear(inputs=2 * channels, outputs=channels)
        self.weight = published_linear(inputs=channels, outputs=1)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Return ``own`` times its weight; both streams are ``[T, B, C, N]``."""
        means = torch.cat([token_mean(own), token_mean(other)], dim=2)
        return self.weight(self.mix(means)).unsqueeze(-1) * own  # type: ignore[no-any-return]


class WeightAttention(Fusion):
    """WeightAttention: each stream is scaled by a weight that is computed from both streams.

    ``w = fc2(fc1(concat(mean_N x, mean_N y)))``, ``x' = w x``. arXiv 2502.12488, section 4,
    compares S-CMRL with this method.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.audio = StreamWeight(channels=channels)
        self.visual = StreamWeight(channels=channels)

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Build the method from the width C."""
        return cls(channels=settings.channels)

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Fuse; both weights are computed from the streams before fusion."""
        new_audio, new_visual = self.audio(audio, visual), self.visual(visual, audio)
        return Fused(new_audio, new_visual, new_audio, new_visual)


class SpikingCrossAttention(Fusion):
    """SCA: spatial cross attention replaces each stream; there is no residual.

    This is the block of SMMT, with which arXiv 2502.12488, section 4, compares S-CMRL. The visual
    block adds a relative position bias to its scores, and neurons fire on the sum. The published
    bias is random and new at every call; with ``rpb: learned`` the bias is a parameter.
    """

    def __init__(self, *, audio: SpikingAttention, visual: SpikingAttention) -> None:
        super().__init__()
        self.audio = audio
        self.visual = visual

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Build SCA with the random or the learned position bias.

        Raises:
            ValueError: the bias is learned, and ``tokens`` is None or not a square number.
        """
        bias: nn.Module = RandomBias()
        if settings.rpb == "learned":
            if tokens is None:
                raise ValueError("A learned position bias needs the number of tokens (tokens=...).")
            bias = LearnedBias(tokens=tokens)
        biased = BiasedSpatialMix(bias=bias, lif=builders.neuron_factory(settings)())
        return cls(
            audio=builders.spatial_attention(settings),
            visual=builders.attention_with(settings, biased),
        )

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Fuse; both blocks attend to the other stream before fusion."""
        new_audio, new_visual = self.audio(audio, visual), self.visual(visual, audio)
        return Fused(new_audio, new_visual, new_audio, new_visual)


class CurrentIntegration(Fusion):
    """CMCI: the currents of both streams drive one layer of neurons, which gives a third stream.

    ``x = LIF(fc1(audio) + fc2(visual))``; the third stream is ``x + MLP(x)``. The audio and the
    visual stream do not change, and each of the three streams has a head. The published network
    also computes a fourth stream, with audio and visual exchanged, which nothing reads; this class
    does not build the fourth stream. arXiv 2502.12488, section 4, compares S-CMRL with this method.
    Saved for backward: both streams and the potentials of the neurons, ``3 C`` values for each
    step, clip and token, and what the MLP saves.
    """

    def __init__(self, *, channels: int, lif: LIF, mlp: SpikingMLP) -> None:
        super().__init__()
        self.audio_current = ChannelLinear(inputs=channels, outputs=channels)
        self.visual_current = ChannelLinear(inputs=channels, outputs=channels)
        self.lif = lif
        self.mlp = mlp

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Build CMCI with the width, the neurons and the MLP ratio of the settings."""
        return cls(
            channels=settings.channels,
            lif=builders.neuron_factory(settings)(),
            mlp=builders.mlp(settings),
        )

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Return both streams unchanged, and the third stream."""
        spikes = self.lif(self.audio_current(audio) + self.visual_current(visual))
        return Fused(audio, visual, third=spikes + self.mlp(spikes))
