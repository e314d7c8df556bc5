"""Readouts: turn streams of tokens into class scores, by a mean and a linear head.

The mean is over tokens and time steps.
Saved for backward: only the means ``[B, C]``; the backward pass of a mean does not read its input.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

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

    def shares(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares ``[B, classes]`` of streams ``[T, B, C, N]``; their sum is the logits.

        Each stream has half of the bias (arXiv 2203.15332).
        """
        weight, bias = self.head.weight, self.head.bias / 2
        return (
            functional.linear(token_and_time_mean(audio), weight, bias),
            functional.linear(token_and_time_mean(visual), weight, bias),
        )


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

    def shares(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares ``[B, classes]`` of streams ``[T, B, C, N]``; their sum is the logits.

        Each stream has its half of the weights, and half of the bias (arXiv 2203.15332).
        """
        (of_audio, of_visual), bias = self.head.weight.chunk(2, dim=1), self.head.bias / 2
        return (
            functional.linear(token_and_time_mean(audio), of_audio, bias),
            functional.linear(token_and_time_mean(visual), of_visual, bias),
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
        return Scores(self.head(token_and_time_mean(third)), self.shares(audio, visual))

    def shares(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the auxiliary scores ``[B, classes]`` of streams ``[T, B, C, N]``."""
        return (
            self.audio_head(token_and_time_mean(audio)),
            self.visual_head(token_and_time_mean(visual)),
        )


#: Readouts by the value of the ``fuse`` setting.
READOUTS: dict[str, type[SumReadout] | type[ConcatReadout]] = {
    "add": SumReadout,
    "concat": ConcatReadout,
}
