"""The networks: patch splits, one fusion block, one MLP for each stream, a readout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from avsnn.models.layers import published_linear
from avsnn.models.readout import pooled

if TYPE_CHECKING:
    from avsnn.models.attention import SpikingAttention
    from avsnn.models.fusion import Fused, Fusion
    from avsnn.models.layers import SpikingMLP
    from avsnn.models.patch_split import PatchSplit
    from avsnn.models.readout import Scores


class Output(NamedTuple):
    """What every network returns.

    Attributes:
        logits: class scores ``[B, classes]``.
        audio_residual: token means ``[T, B, C]`` of what the audio block gave, None without one.
        visual_residual: the same of the visual block.
        auxiliary: scores ``[B, classes]`` that have cross-entropies of their own (CMCI).
        aligned: whether the residuals went through the alignment neurons, so that the semantic
            alignment loss applies to them.
    """

    logits: Tensor
    audio_residual: Tensor | None = None
    visual_residual: Tensor | None = None
    auxiliary: tuple[Tensor, ...] = ()
    aligned: bool = False


def _token_mean(features: Tensor | None) -> Tensor | None:
    return None if features is None else features.mean(dim=3)


class AudioVisualSpikformer(nn.Module):
    """Two streams, fused once (arXiv 2502.12488, figure 2).

    ``a', v' = fusion(a, v)``, ``a'' = a' + MLP(a')``, ``v'' = v' + MLP(v')``, then the readout.

    Args:
        steps: T.
        audio_patch: image or frames to tokens ``[T, B, C, N]``.
        visual_patch: the same for vision; N must agree.
        fusion: how the streams meet.
        audio_mlp: MLP of the audio stream.
        visual_mlp: MLP of the visual stream.
        readout: ``(audio, visual, third) -> Scores``.
        aligned: whether the fusion aligns its residuals.
    """

    def __init__(
        self,
        *,
        steps: int,
        audio_patch: PatchSplit,
        visual_patch: PatchSplit,
        fusion: Fusion,
        audio_mlp: SpikingMLP,
        visual_mlp: SpikingMLP,
        readout: nn.Module,
        aligned: bool,
    ) -> None:
        super().__init__()
        self.steps = steps
        self.audio_patch = audio_patch
        self.visual_patch = visual_patch
        self.fusion = fusion
        self.audio_mlp = audio_mlp
        self.visual_mlp = visual_mlp
        self.readout = readout
        self.aligned = aligned

    def forward(self, audio: Tensor | None, visual: Tensor | None) -> Output:
        """Classify pairs; each input static ``[B, C_in, H, W]`` or events ``[T, B, C_in, H, W]``.

        Raises:
            ValueError: an input is missing, batch or token counts of the two differ, or a shape is
                refused by the patch split.
        """
        if audio is None or visual is None:
            raise ValueError("This network needs both an audio and a visual input.")
        a = self.audio_patch(audio, self.steps)
        v = self.visual_patch(visual, self.steps)
        if a.shape != v.shape:
            raise ValueError(
                "Audio and visual input must agree in batch and tokens, not "
                f"{a.shape[1]} x {a.shape[3]} and {v.shape[1]} x {v.shape[3]}."
            )
        fused: Fused = self.fusion(a, v)
        scores: Scores = self.readout(
            fused.audio + self.audio_mlp(fused.audio),
            fused.visual + self.visual_mlp(fused.visual),
            fused.third,
        )
        return Output(
            logits=scores.logits,
            audio_residual=_token_mean(fused.audio_residual),
            visual_residual=_token_mean(fused.visual_residual),
            auxiliary=scores.auxiliary,
            aligned=self.aligned,
        )


class SingleSpikformer(nn.Module, ABC):
    """One stream: ``x + SelfAttention(x)``, ``x + MLP(x)``, means, a linear head."""

    def __init__(
        self,
        *,
        steps: int,
        patch: PatchSplit,
        attention: SpikingAttention,
        mlp: SpikingMLP,
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.steps = steps
        self.patch = patch
        self.attention = attention
        self.mlp = mlp
        self.head = published_linear(inputs=channels, outputs=classes)

    @staticmethod
    @abstractmethod
    def pick(audio: Tensor | None, visual: Tensor | None) -> Tensor:
        """Pick the input that this network reads."""

    def forward(self, audio: Tensor | None, visual: Tensor | None) -> Output:
        """Classify clips by one modality; the other input may be None and is ignored.

        Raises:
            ValueError: the input it reads is missing, or its shape is refused.
        """
        x = self.patch(self.pick(audio, visual), self.steps)
        x = x + self.attention(x, x)
        x = x + self.mlp(x)
        return Output(logits=self.head(pooled(x)))


class AudioSpikformer(SingleSpikformer):
    """Audio alone."""

    @staticmethod
    def pick(audio: Tensor | None, visual: Tensor | None) -> Tensor:
        """Pick the audio input.

        Raises:
            ValueError: there is none.
        """
        if audio is None:
            raise ValueError("This network needs an audio input.")
        return audio


class VisualSpikformer(SingleSpikformer):
    """Vision alone."""

    @staticmethod
    def pick(audio: Tensor | None, visual: Tensor | None) -> Tensor:
        """Pick the visual input.

        Raises:
            ValueError: there is none.
        """
        if visual is None:
            raise ValueError("This network needs a visual input.")
        return visual
