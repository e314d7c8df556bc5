"""How two streams of tokens meet: S-CMRL and the methods it is compared with.

Every method is one :class:`Fusion`: it takes the tokens of both modalities, ``[T, B, C, N]``, and
returns :class:`Fused`. A new one is a class here and its line in ``methods.METHODS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from avsnn.models import parts
from avsnn.models.attention import BiasedSpatialMix, LearnedBias, RandomBias, SpikingAttention
from avsnn.models.layers import ChannelLinear, SpikingMLP, published_linear

if TYPE_CHECKING:
    from avsnn.models.neuron import LIF
    from avsnn.models.settings import ModelSettings


class Fused(NamedTuple):
    """Both streams after fusion.

    ``audio`` and ``visual`` go on to the MLPs. The residuals are what the block of each modality
    gave (None where there is no block); ``third`` is a stream of its own that goes to the head.
    All ``[T, B, C, N]``.
    """

    audio: Tensor
    visual: Tensor
    audio_residual: Tensor | None = None
    visual_residual: Tensor | None = None
    third: Tensor | None = None


class Fusion(nn.Module, ABC):
    """What every fusion method promises."""

    #: whether the residuals can be aligned by the semantic alignment loss
    can_align: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Build it. ``tokens`` is N where the caller knows it."""

    @abstractmethod
    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """``[T, B, C, N]`` each."""


class NoFusion(Fusion):
    """Streams that meet in the head only: the plain audio-visual baseline."""

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Nothing to set."""
        return cls()

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Return the streams as they are."""
        return Fused(audio, visual)


class Alignment(nn.Module):
    """``LIF(norm(Linear(r)))`` over channels: residuals as spikes, for semantic alignment.

    (arXiv 2502.12488, section 3.4, where there is no norm.) Saved for backward: the residual and
    the potentials of the neurons, each ``[T, B, C, N]``, and as much again for a norm.
    """

    def __init__(self, *, channels: int, norm: nn.Module, lif: LIF) -> None:
        super().__init__()
        self.linear = ChannelLinear(inputs=channels, outputs=channels)
        self.norm = norm
        self.lif = lif

    def forward(self, residual: Tensor) -> Tensor:
        """Real ``[T, B, C, N]`` to spikes ``[T, B, C, N]``."""
        return self.lif(self.norm(self.linear(residual)))  # type: ignore[no-any-return]


class CrossModalResidual(Fusion):
    """S-CMRL: each stream gains ``alpha`` times what it attends to in the other.

    ``a' = a + alpha * r(a; v)``, ``v' = v + alpha * r(v; a)`` (arXiv 2502.12488, section 3.3).
    Saved for backward: what attention and alignment save; the sums need nothing.

    Args:
        audio: attention of the audio stream, ``(own, other) -> residual``.
        visual: attention of the visual stream.
        audio_alignment: applied to the residual before it is added, or ``nn.Identity()``.
        visual_alignment: the same for the visual residual.
        alpha: share of the residual.
    """

    can_align = True

    def __init__(
        self,
        *,
        audio: nn.Module,
        visual: nn.Module,
        audio_alignment: nn.Module,
        visual_alignment: nn.Module,
        alpha: float,
    ) -> None:
        super().__init__()
        self.audio = audio
        self.visual = visual
        self.audio_alignment = audio_alignment
        self.visual_alignment = visual_alignment
        self.alpha = alpha

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """With the attention and alignment that the settings name."""
        attention = parts.ATTENTIONS[settings.attention]
        fire = parts.neuron(settings, threshold=settings.alignment_threshold)

        def alignment() -> nn.Module:
            if not settings.alignment:
                return nn.Identity()
            norm = parts.norm(settings, wanted=settings.alignment_norm)
            return Alignment(channels=settings.channels, norm=norm, lif=fire())

        return cls(
            audio=attention(settings),
            visual=attention(settings),
            audio_alignment=alignment(),
            visual_alignment=alignment(),
            alpha=settings.alpha,
        )

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Both streams read the other as it was before fusion."""
        r_audio = self.audio_alignment(self.audio(audio, visual))
        r_visual = self.visual_alignment(self.visual(visual, audio))
        return Fused(
            torch.add(audio, r_audio, alpha=self.alpha),
            torch.add(visual, r_visual, alpha=self.alpha),
            r_audio,
            r_visual,
        )


class StreamWeight(nn.Module):
    """One number for each step and clip from the token means of both streams, no non-linearity.

    Saved for backward: the stream it scales, ``[T, B, C, N]``, and vectors for each step and clip.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.mix = published_linear(inputs=2 * channels, outputs=channels)
        self.weight = published_linear(inputs=channels, outputs=1)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """``[T, B, C, N]`` each, to ``own`` times its weight."""
        means = torch.cat([own.mean(dim=3), other.mean(dim=3)], dim=2)
        return self.weight(self.mix(means)).unsqueeze(-1) * own  # type: ignore[no-any-return]


class WeightAttention(Fusion):
    """Each stream is scaled by a weight computed from both (WeightAttention).

    ``w = fc2(fc1(concat(mean_N x, mean_N y)))``, ``x' = w x``, compared with in arXiv
    2502.12488, section 4.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.audio = StreamWeight(channels=channels)
        self.visual = StreamWeight(channels=channels)

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Width only."""
        return cls(channels=settings.channels)

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Both weights see the streams as they were before fusion."""
        new_audio, new_visual = self.audio(audio, visual), self.visual(visual, audio)
        return Fused(new_audio, new_visual, new_audio, new_visual)


class SpikingCrossAttention(Fusion):
    """SCA: spatial cross attention takes the place of each stream, without a residual.

    (SMMT's block, as compared with in arXiv 2502.12488, section 4.)

    The visual side adds a relative position bias to its scores and fires on the sum. As published
    the bias is random and new at every call; ``rpb: learned`` makes it a parameter.
    """

    def __init__(self, *, audio: SpikingAttention, visual: SpikingAttention) -> None:
        super().__init__()
        self.audio = audio
        self.visual = visual

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """With the published or the learned bias.

        Raises:
            ValueError: the bias is learned and ``tokens`` is unknown or no square.
        """
        bias: nn.Module = RandomBias()
        if settings.rpb == "learned":
            if tokens is None:
                raise ValueError("A learned position bias needs the number of tokens (tokens=...).")
            bias = LearnedBias(tokens=tokens)
        biased = BiasedSpatialMix(bias=bias, lif=parts.neuron(settings)())
        return cls(
            audio=parts.spatial_attention(settings),
            visual=parts.attention_over(settings, biased),
        )

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Both sides attend to the other as it was before fusion."""
        new_audio, new_visual = self.audio(audio, visual), self.visual(visual, audio)
        return Fused(new_audio, new_visual, new_audio, new_visual)


class CurrentIntegration(Fusion):
    """CMCI: the currents of both streams drive one more layer of neurons, a third stream.

    ``x = LIF(fc1(audio) + fc2(visual))``, third stream ``x + MLP(x)``; the two streams stay as they
    are, and each of the three has a head. The published network computes a fourth, mirrored one
    that nothing reads; it is not built here. Compared with in arXiv 2502.12488, section 4. Saved
    for backward: both streams and the potentials of the neurons, ``3 C`` values for each step, clip
    and token, and what the MLP saves.
    """

    def __init__(self, *, channels: int, lif: LIF, mlp: SpikingMLP) -> None:
        super().__init__()
        self.audio_current = ChannelLinear(inputs=channels, outputs=channels)
        self.visual_current = ChannelLinear(inputs=channels, outputs=channels)
        self.lif = lif
        self.mlp = mlp

    @classmethod
    def from_settings(cls, settings: ModelSettings, *, tokens: int | None) -> Self:
        """Width, neurons and MLP ratio."""
        return cls(
            channels=settings.channels, lif=parts.neuron(settings)(), mlp=parts.mlp(settings)
        )

    def forward(self, audio: Tensor, visual: Tensor) -> Fused:
        """Return the streams as they are, and the third."""
        spikes = self.lif(self.audio_current(audio) + self.visual_current(visual))
        return Fused(audio, visual, third=spikes + self.mlp(spikes))
