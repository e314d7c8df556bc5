"""The networks: a patch split and an MLP per stream, fusion or self-attention, and a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from avsnn.models.fusion import Fused
from avsnn.models.layers import published_linear
from avsnn.models.readout import token_and_time_mean
from avsnn.models.registry import MethodError
from avsnn.models.token_layout import token_mean

if TYPE_CHECKING:
    from avsnn.models.attention import SpikingAttention
    from avsnn.models.fusion import Fusion
    from avsnn.models.layers import SpikingMLP
    from avsnn.models.patch_split import PatchSplit
    from avsnn.models.readout import Scores


class Output(NamedTuple):
    """Output of every network.

    Attributes:
        logits: class scores ``[B, classes]``.
        audio_residual: token means ``[T, B, C]`` of the output of the audio block; None if the
            network has no audio block.
        visual_residual: token means ``[T, B, C]`` of the output of the visual block; None if the
            network has no visual block.
        auxiliary: further class scores ``[B, classes]``; each adds its own cross-entropy to the
            loss (CMCI).
        aligned: whether the residuals went through the alignment neurons, so that the semantic
            alignment loss applies to the residuals.
        shares: class scores ``[B, classes]`` of the audio stream alone and of the visual stream
            alone; empty unless ``AudioVisualSpikformer.gives_shares`` is set.
        step_logits: class scores ``[T, B, classes]`` of each time step alone; None unless the
            network is in training mode and its fusion method weights the steps.
        step_weights: weights ``[T, B]`` of the time steps; None as for ``step_logits``.
    """

    logits: Tensor
    audio_residual: Tensor | None = None
    visual_residual: Tensor | None = None
    auxiliary: tuple[Tensor, ...] = ()
    aligned: bool = False
    shares: tuple[Tensor, ...] = ()
    step_logits: Tensor | None = None
    step_weights: Tensor | None = None


def _token_mean(features: Tensor | None) -> Tensor | None:
    return None if features is None else token_mean(features)


def _require_streams(fusion: Fusion, fused: object, tokens: Tensor) -> None:
    """Refuse what a fusion method returned, unless every stream has the shape of the tokens.

    Raises:
        MethodError: the result is no ``Fused``, or a stream or the weights have another shape.
    """
    if isinstance(fused, Fused):
        streams = zip(Fused._fields[:-1], fused[:-1], strict=True)
        found = next(
            (
                f"a stream {name} of {list(stream.shape)}"
                for name, stream in streams
                if stream is not None and stream.shape != tokens.shape
            ),
            "",
        )
        weights = fused.step_weights
        if weights is not None and weights.shape != tokens.shape[:2]:
            found = f"step_weights of {list(weights.shape)} in place of [T, B]"
    else:
        found = f"a {type(fused).__name__}"
    if found:
        kind = type(fusion)
        code = getattr(kind.forward, "__code__", None)
        place = f"{code.co_filename}, line {code.co_firstlineno}: " if code else ""
        raise MethodError(
            f"{place}{kind.__name__}.forward must return Fused(audio=..., visual=...) with "
            f"streams of the shape of its inputs, [T, B, C, N] = {list(tokens.shape)}, and "
            f"returned {found}"
        )


class AudioVisualSpikformer(nn.Module):
    """Network of two streams that are fused once (arXiv 2502.12488, figure 2).

    ``a', v' = fusion(a, v)``, ``a'' = a' + MLP(a')``, ``v'' = v' + MLP(v')``, then the readout.

    Args:
        steps: T.
        audio_patch: turns the audio image or frames into tokens ``[T, B, C, N]``.
        visual_patch: turns the visual image or frames into tokens, with the same N.
        fusion: the fusion method.
        audio_mlp: MLP of the audio stream.
        visual_mlp: MLP of the visual stream.
        readout: ``(audio, visual, third) -> Scores``.
        aligned: whether the fusion aligns its residuals.

    Attributes:
        gives_shares: whether the output holds the class scores of each stream alone, which balanced
            training reads. False after building.
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
        self.gives_shares = False

    def forward(self, audio: Tensor | None, visual: Tensor | None) -> Output:
        """Classify pairs of an audio and a visual input.

        Args:
            audio: static ``[B, C_in, H, W]`` or events ``[T, B, C_in, H, W]``.
            visual: static ``[B, C_in, H, W]`` or events ``[T, B, C_in, H, W]``.

        Raises:
            ValueError: an input is missing, the two inputs differ in the number of clips or of
                tokens, the patch split refuses a shape, or the fusion method returns other shapes
                than those of its inputs.
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
        _require_streams(self.fusion, fused, a)
        streams = (
            fused.audio + self.audio_mlp(fused.audio),
            fused.visual + self.visual_mlp(fused.visual),
        )
        scores: Scores = self.readout(*streams, fused.third)
        weighs_steps = fused.step_weights is not None and self.training
        return Output(
            logits=scores.logits,
            audio_residual=_token_mean(fused.audio_residual),
            visual_residual=_token_mean(fused.visual_residual),
            auxiliary=scores.auxiliary,
            aligned=self.aligned,
            shares=self.readout.shares(*streams) if self.gives_shares else (),  # type: ignore[operator]
            step_logits=self._step_logits(*streams, fused.third) if weighs_steps else None,
            step_weights=fused.step_weights if weighs_steps else None,
        )

    def _step_logits(self, audio: Tensor, visual: Tensor, third: Tensor | None) -> Tensor:
        """Return the class scores ``[T, B, classes]`` of each time step alone."""
        thirds = [None] * self.steps if third is None else third.chunk(self.steps)
        steps = zip(audio.chunk(self.steps), visual.chunk(self.steps), thirds, strict=True)
        return torch.stack([self.readout(*streams).logits for streams in steps])


class UnimodalSpikformer(nn.Module, ABC):
    """Network of one stream: ``x + SelfAttention(x)``, ``x + MLP(x)``, mean, linear head.

    The mean is over tokens and time steps.
    """

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
        """Return the input that this network reads."""

    def forward(self, audio: Tensor | None, visual: Tensor | None) -> Output:
        """Classify clips by one modality; the other input is ignored and may be None.

        Raises:
            ValueError: the input that this network reads is missing, or the patch split refuses its
                shape.
        """
        x = self.patch(self.pick(audio, visual), self.steps)
        x = x + self.attention(x, x)
        x = x + self.mlp(x)
        return Output(logits=self.head(token_and_time_mean(x)))


class AudioSpikformer(UnimodalSpikformer):
    """Network that reads only the audio input."""

    @staticmethod
    def pick(audio: Tensor | None, visual: Tensor | None) -> Tensor:
        """Return the audio input.

        Raises:
            ValueError: there is no audio input.
        """
        if audio is None:
            raise ValueError("This network needs an audio input.")
        return audio


class VisualSpikformer(UnimodalSpikformer):
    """Network that reads only the visual input."""

    @staticmethod
    def pick(audio: Tensor | None, visual: Tensor | None) -> Tensor:
        """Return the visual input.

        Raises:
            ValueError: there is no visual input.
        """
        if visual is None:
            raise ValueError("This network needs a visual input.")
        return visual
