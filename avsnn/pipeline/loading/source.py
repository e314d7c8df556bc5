"""What every source of samples gives: samples by their rows."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from avsnn.pipeline.runs.sample_shapes import SampleShapes


class Samples(NamedTuple):
    """Samples as the caches hold them.

    Attributes:
        frames: one frame of each clip, ``[B, 3, H, W]`` uint8 RGB; or T frames of each clip,
            ``[B, T, 3, H, W]``; or the event frames of each clip, ``[B, T, 2, H, W]`` uint8 counts
            of events of each polarity.
        audio: one audio image of each clip, ``[B, 1, F, F]`` float32 log magnitudes; or the event
            frames of a cochlea, ``[B, T, 1, h, w]`` uint8 counts of events of each channel.
        labels: class of each clip, ``[B]`` int64.
    """

    frames: Tensor
    audio: Tensor
    labels: Tensor


class Source(Protocol):
    """The samples of a data set by row; a row is the same sample in every source.

    Attributes:
        labels: class of the clip of each row, ``[N]`` int64.
        shapes: shapes of the arrays of every sample.
        frame_counts: number of frames that are stored of the clip of each row, ``[N]``; of event
            data, no number that means anything.
        note: what a person should know about the way the samples are read; may be empty.
    """

    labels: Tensor
    shapes: SampleShapes
    frame_counts: NDArray[np.int64]
    note: str

    @property
    def keys(self) -> NDArray[Any]:
        """Key of the clip of each row, ``StringDType [N]``."""

    def read(self, rows: NDArray[np.int64], frame_positions: NDArray[np.float64]) -> Samples:
        """Return the samples of some rows.

        Args:
            rows: row of each sample, ``[B]``.
            frame_positions: position in [0, 1) of the wanted frame along each clip, ``[B]``; or of
                the T wanted frames, ``[B, T]``.
        """


def requested_frames(
    frame_positions: NDArray[np.float64], frame_counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return which frames of each clip are asked for, counted from 0, ``[B]`` or ``[B, T]``.

    Args:
        frame_positions: positions in [0, 1) along each clip, ``[B]`` or ``[B, T]``.
        frame_counts: number of frames of each clip, ``[B]``.
    """
    return (frame_positions.T * frame_counts).T.astype(np.int64)
