"""Samples from the Zarr caches."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from upath import UPath

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.formats.cache_layout import shard_file
from avsnn.pipeline.formats.damaged import DamagedError, damaged_error
from avsnn.pipeline.loading.cache_group import CacheGroup
from avsnn.pipeline.loading.local_cache import LocalCache, open_local_cache
from avsnn.pipeline.loading.mapped_array import MappedArray
from avsnn.pipeline.loading.source import Samples, requested_frames
from avsnn.pipeline.runs.sample_shapes import SampleShapes, is_events

if TYPE_CHECKING:
    import zarr


class CacheSource:
    """The frame cache and the audio cache of a data set, which list the same clips.

    Args:
        frames: the Zarr group that ``FrameCache`` writes.
        audio: the Zarr group that ``AudioCache`` writes.
        copies: where files of a store are copied to; None takes the cache of the environment.

    Raises:
        UserError: a cache is missing or damaged, or the caches hold different clips.
    """

    def __init__(self, *, frames: Folder, audio: Folder, copies: LocalCache | None = None) -> None:
        group, sound_group = CacheGroup(frames, "frames"), CacheGroup(audio, "audio")
        self._frames = frames
        self.labels = torch.from_numpy(group.read_small("label", np.int64))
        spans, sound_spans = (each.read_small("rows", np.int64) for each in (group, sound_group))
        if group.key_bytes() != sound_group.key_bytes():
            raise UserError(
                f"{frames} and {audio} hold different clips; run 'avsnn prepare' again."
            )
        images, sounds = group.open("frames"), sound_group.open("audio")
        clips = int(np.prod(group.open("key").shape))
        counts = {clips, len(self.labels), len(spans), len(sound_spans)}
        if len(counts) != 1 or not (spans[:, 1] >= 1).all() or not (sound_spans[:, 1] == 1).all():
            raise damaged_error(frames, "its arrays do not hold the same number of clips")
        # A view would keep the numbers of rows in memory, too.
        self._spans, self._sound_rows = spans, sound_spans[:, 0].copy()
        self.frame_counts = spans[:, 1]
        for folder, array, rows in ((frames, images, spans), (audio, sounds, sound_spans)):
            if (rows[:, 0] < 0).any() or (rows.sum(1) > array.shape[0]).any():
                raise damaged_error(folder / "rows", "it names rows that there are not")
        self.shapes = SampleShapes(images.shape[1:], sounds.shape[1:])
        if images.dtype != "uint8" or images.ndim not in (4, 5):
            raise damaged_error(frames / "frames", "it holds other frames than were written")
        if sounds.dtype != ("uint8" if is_events(self.shapes.audio) else "float32"):
            raise damaged_error(audio / "audio", "it holds other numbers than were written")
        if len({shape[0] for shape in self.shapes if is_events(shape)}) > 1:
            raise UserError(
                f"{frames} and {audio} hold event frames of different numbers of time steps; run "
                "'avsnn prepare' again."
            )
        self.note = ""
        if isinstance(frames, UPath):
            copies = copies or open_local_cache()
            self.note = copies.note(frames)
        self._read_frames = _row_reader(frames, images, copies)
        self._read_audio = _row_reader(audio, sounds, copies)

    @cached_property
    def keys(self) -> NDArray[Any]:
        """Key of each clip, ``StringDType [N]``; a process that reads samples needs no keys."""
        keys = CacheGroup(self._frames, "frames").read_small("key")
        return keys.astype(np.dtypes.StringDType())

    def read(self, rows: NDArray[np.int64], frame_positions: NDArray[np.float64]) -> Samples:
        """Return the samples of some rows, as `Source` says."""
        start, count = self._spans[rows].T
        frame_rows = (start + requested_frames(frame_positions, count).T).T
        frames = self._read_frames(frame_rows.ravel())
        return Samples(
            frames=torch.from_numpy(frames.reshape(*frame_rows.shape, *frames.shape[1:])),
            audio=torch.from_numpy(self._read_audio(self._sound_rows[rows])),
            labels=self.labels[torch.from_numpy(rows)],
        )


def _row_reader(
    folder: Folder, array: "zarr.Array[Any]", copies: LocalCache | None
) -> Callable[[NDArray[np.int64]], NDArray[Any]]:
    """Return a function that takes rows from the large array of a cache.

    Args:
        folder: the folder of the cache.
        array: the array.
        copies: where the files of a store are copied to.
    """
    name, dimensions = array.basename, array.ndim - 1
    if array.shards is None:
        raise damaged_error(folder / name / "zarr.json")
    if not isinstance(folder, UPath):
        return MappedArray(folder / name, array).take
    assert copies is not None  # noqa: S101 - narrows the type
    place, rows_per_shard = copies.copies_of(folder), array.shards[0]
    mapped = MappedArray(
        copies.folder, array, lambda number: place.path(shard_file(name, number, dimensions))
    )

    def read(rows: NDArray[np.int64]) -> NDArray[Any]:
        numbers = np.unique(rows // rows_per_shard)
        place.fetch(shard_file(name, int(number), dimensions) for number in numbers)
        try:
            return mapped.take(rows)
        except DamagedError as error:
            place.remove()
            raise UserError(
                f"{error} The file was a copy of a file in {folder} and is removed, so run the "
                "same command again first."
            ) from None

    return read
