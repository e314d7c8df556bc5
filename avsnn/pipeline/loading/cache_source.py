"""Samples from the Zarr caches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from upath import UPath

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.loading.mapped_array import MappedArray
from avsnn.pipeline.loading.order import BatchRequest
from avsnn.pipeline.loading.source import Batch, requested_frames

# An array in a store is read once and kept in memory up to this size. A larger array is read batch
# by batch.
IN_MEMORY_BYTES = 2 * 2**30


class CacheSource:
    """The frame cache and the audio cache of a data set; equal rows are the same clip.

    Args:
        frames: the Zarr group that ``FrameCache`` writes.
        audio: the Zarr group that ``AudioCache`` writes.

    Raises:
        UserError: a cache is missing, or the caches hold different clips.
    """

    note = ""

    def __init__(self, *, frames: Folder, audio: Folder) -> None:
        for path in (frames, audio):
            if not (path / "zarr.json").exists():
                raise UserError(f"{path} is not a cache; run 'avsnn prepare' again.")
        frame_group, audio_group = (
            zarr.open_group(str(path), mode="r") for path in (frames, audio)
        )
        self.keys: list[str] = _read_whole(frame_group, "key").tolist()
        self.labels = torch.from_numpy(_read_whole(frame_group, "label").astype(np.int64))
        self._offsets = _read_whole(frame_group, "offsets").astype(np.int64)
        if self.keys != _read_whole(audio_group, "key").tolist():
            raise UserError(
                f"{frames} and {audio} hold different clips; run 'avsnn prepare' again."
            )
        self._read_frames = _row_reader(frames, frame_group, "frames")
        self._read_audio = _row_reader(audio, audio_group, "audio")

    def read(self, request: BatchRequest) -> Batch:
        """Return the samples that are asked for."""
        rows = request.rows
        start, stop = self._offsets[rows], self._offsets[rows + 1]
        frame_rows = start + requested_frames(request, stop - start)
        return Batch(
            rows=rows,
            frames=torch.from_numpy(self._read_frames(frame_rows)),
            audio=torch.from_numpy(self._read_audio(rows)),
            labels=self.labels[torch.from_numpy(rows)],
        )


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    array = group[name]
    assert isinstance(array, zarr.Array)  # noqa: S101 - narrows the type
    return array


def _read_whole(group: zarr.Group, name: str) -> NDArray[Any]:
    return np.asarray(_array(group, name)[:])


def _row_reader(
    folder: Folder, group: zarr.Group, name: str
) -> Callable[[NDArray[np.int64]], NDArray[Any]]:
    """Return the fastest function there is that takes rows from the large array of a cache."""
    array = _array(group, name)
    if isinstance(folder, Path) and not isinstance(folder, UPath):
        return MappedArray(folder / name, array).take
    if array.nbytes <= IN_MEMORY_BYTES:
        return np.asarray(array[:]).__getitem__
    return lambda rows: np.asarray(array.oindex[rows])
