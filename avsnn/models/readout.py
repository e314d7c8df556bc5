"""Readouts: turn streams of tokens into class scores, by a mean and a linear head.

The mean is over tokens and time steps.
Saved for backward: only the means ``[B, C]``; the backward pass of a mean does not read its input.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from avsnn.models.layers import published_linear
from avsnn.models.token_layout import token_mean


class Scores(NamedTuple):
    """Class scores of a readout.

    Attributes:
        logits: class scores ``[B, classes]``.
        auxiliary: further class scores ``[B, classes]``; each adds its own cross-entropy to the
            loss.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()


def token_and_time_mean(stream: Tensor) -> Tensor:
    """Return the mean of ``[T, B, C, N]`` over tokens and time steps, ``[B, C]``."""
    return token_mean(stream).mean(dim=0)


class SumReadout(nn.Module):
    """One head on the sum of both streams; the third stream is ignored."""

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        self.head = published_linear(inputs=channels, outputs=classes)

    def forward(self, audio: Tensor, visual: Tensor, _third: Tensor | None) -> Scores:
        """Classify streams ``[T, B, C, N]``."""
        return Scores(self.head(token_and_time_mean(audio) + token_and_time_mean(visual)))


class ConcatReadout(nn.Module):
    """One head on both streams side by side, 2C channels; the third stream is ignored."""

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        self.head = published_linear(inputs=2 * channels, outputs=classes)

    def forward(self, audio: Tensor, visual: Tensor, _third: Tensor | None) -> Scores:
        """Classify streams ``[T, B, C, N]``."""
        return Scores(
            self.head(torch.cat([token_and_time_mean(audio), token_and_time_mean(visual)], dim=1))
        )


class StreamReadout(nn.Module):
    """Readout of CMCI: the logits come from the third stream.

    The heads on the audio and the visual stream give auxiliary scores, which only add to the loss.
    """

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        self.head = published_linear(inputs=channels, outputs=classes)
        self.audio_head = published_linear(inputs=channels, outputs=classes)
        self.visual_head = published_linear(inputs=channels, outputs=classes)

    def forward(self, audio: Tensor, visual: Tensor, third: Tensor | None) -> Scores:
        """Classify streams ``[T, B, C, N]``.

        Raises:
            ValueError: the fusion method gives no third stream.
        """
        if third is None:
            raise ValueError("This readout needs a fusion method with a third stream.")
        auxiliary = (
            self.audio_head(token_and_time_mean(audio)),
            self.visual_head(token_and_time_mean(visual)),
        )
        return Scores(self.head(token_and_time_mean(third)), auxiliary)


#: Readouts by the value of the ``fuse`` setting.
READOUTS: dict[str, type[SumReadout] | type[ConcatReadout]] = {
    "add": SumReadout,
    "concat": ConcatReadout,
}
