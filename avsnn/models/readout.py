"""From streams of tokens to class scores: means over tokens and time, then linear heads.

Saved for backward: the means ``[B, C]`` only; a mean needs nothing of what it was taken over.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from avsnn.models.layers import published_linear


class Scores(NamedTuple):
    """Class scores ``[B, classes]``; ``auxiliary`` ones have cross-entropies of their own."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()


def pooled(stream: Tensor) -> Tensor:
    """``[T, B, C, N]`` to its mean over tokens and time, ``[B, C]``."""
    return stream.mean(dim=3).mean(dim=0)


class SumReadout(nn.Module):
    """One head on the sum of both streams."""

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        self.head = published_linear(inputs=channels, outputs=classes)

    def forward(self, audio: Tensor, visual: Tensor, _third: Tensor | None) -> Scores:
        """Streams ``[T, B, C, N]``."""
        return Scores(self.head(pooled(audio) + pooled(visual)))


class ConcatReadout(nn.Module):
    """One head on both streams side by side, 2C wide."""

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        self.head = published_linear(inputs=2 * channels, outputs=classes)

    def forward(self, audio: Tensor, visual: Tensor, _third: Tensor | None) -> Scores:
        """Streams ``[T, B, C, N]``."""
        return Scores(self.head(torch.cat([pooled(audio), pooled(visual)], dim=1)))


class StreamReadout(nn.Module):
    """The third stream decides; heads on the two modality streams only add to the loss (CMCI)."""

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        self.head = published_linear(inputs=channels, outputs=classes)
        self.audio_head = published_linear(inputs=channels, outputs=classes)
        self.visual_head = published_linear(inputs=channels, outputs=classes)

    def forward(self, audio: Tensor, visual: Tensor, third: Tensor | None) -> Scores:
        """Streams ``[T, B, C, N]``.

        Raises:
            ValueError: the fusion method gave no third stream.
        """
        if third is None:
            raise ValueError("This readout needs a fusion method with a third stream.")
        auxiliary = (self.audio_head(pooled(audio)), self.visual_head(pooled(visual)))
        return Scores(self.head(pooled(third)), auxiliary)


#: Readouts by the ``fuse`` setting.
READOUTS: dict[str, type[SumReadout] | type[ConcatReadout]] = {
    "add": SumReadout,
    "concat": ConcatReadout,
}
