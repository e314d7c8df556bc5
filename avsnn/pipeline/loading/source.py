"""What every source of samples gives: batches of samples by their rows."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from avsnn.pipeline.loading.order import BatchRequest


class Batch(NamedTuple):
    """Samples as the caches hold them.

    Attributes:
        rows: row of each sample, ``[B]``.
        frames: one frame of each clip, ``[B, 3, H, W]`` uint8 RGB.
        audio: one audio image of each clip, ``[B, 1, F, F]`` float32 log magnitudes.
        labels: class of each clip, ``[B]`` int64.
    """

    rows: NDArray[np.int64]
    frames: Tensor
    audio: Tensor
    labels: Tensor

    def pinned(self) -> "Batch":
        """Return the same batch in pinned memory, from which a GPU copies without the CPU."""
        tensors = (tensor.pin_memory() for tensor in (self.frames, self.audio, self.labels))
        return Batch(self.rows, *tensors)


class Source(Protocol):
    """The samples of a data set by row; a row is the same sample in every source.

    Attributes:
        keys: key of the clip of each row.
        labels: class of the clip of each row, ``[N]`` int64.
        note: what a person should know about the way the samples are read; may be empty.
    """

    keys: list[str]
    labels: Tensor
    note: str

    def read(self, request: BatchRequest) -> Batch:
        """Return the samples that are asked for."""


def requested_frames(request: BatchRequest, frame_counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which frame of each clip is asked for, counted from 0, ``[B]``.

    Args:
        request: the request, with a position in [0, 1) for each clip.
        frame_counts: number of frames of each clip, ``[B]``.
    """
    return (request.frame_positions * frame_counts).astype(np.int64)
