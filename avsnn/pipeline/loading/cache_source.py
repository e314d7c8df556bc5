"""Samples from the Zarr caches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from upath import UPath

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.formats.cache_layout import CODECS, shard_file, small_array_files
from avsnn.pipeline.formats.damaged import damaged_error, unreadable_error
from avsnn.pipeline.loading.mapped_array import MappedArray, has_right_crc
from avsnn.pipeline.loading.source import Samples, requested_frames
from avsnn.pipeline.runs.sample_shapes import SampleShapes, is_events

# An array in a store is read once and kept in memory up to this size. A larger array is read batch
# by batch.
IN_MEMORY_BYTES = 2 * 2**30


class CacheSource:
    """The frame cache and the audio cache of a data set, which list the same clips.

    Args:
        frames: the Zarr group that ``FrameCache`` writes.
        audio: the Zarr group that ``AudioCache`` writes.

    Raises:
        UserError: a cache is missing or damaged, or the caches hold different clips.
    """

    note = ""

    def __init__(self, *, frames: Folder, audio: Folder) -> None:
        for path in (frames, audio):
            if not (path / "zarr.json").exists():
                raise UserError(f"{path} is not a cache; run 'avsnn prepare' again.")
        self._frames = frames
        self.labels = torch.from_numpy(_read_small(frames, "label", np.int64))
        spans, sound_spans = (_read_small(cache, "rows", np.int64, 2) for cache in (frames, audio))
        if _key_bytes(frames) != _key_bytes(audio):
            raise UserError(
                f"{frames} and {audio} hold different clips; run 'avsnn prepare' again."
            )
        images, sounds = _open_array(frames, "frames"), _open_array(audio, "audio")
        clips = int(np.prod(_open_array(frames, "key").shape))
        counts = {clips, len(self.labels), len(spans), len(sound_spans)}
        if len(counts) != 1 or not (spans[:, 1] >= 1).all() or not (sound_spans[:, 1] == 1).all():
            raise damaged_error(frames, "its arrays do not hold the same number of clips")
        # A view would keep the numbers of rows in memory, too.
        self._spans, self._sound_rows = spans, sound_spans[:, 0].copy()
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
        self._rows_per_shard = images.shards[0] if images.shards else 1
        self._read_frames = _row_reader(frames / "frames", images)
        self._read_audio = _row_reader(audio / "audio", sounds)

    @cached_property
    def keys(self) -> NDArray[Any]:
        """Key of each clip, ``StringDType [N]``; a process that reads samples needs no keys."""
        return _read_small(self._frames, "key").astype(np.dtypes.StringDType())

    @property
    def shard_numbers(self) -> NDArray[np.int64]:
        """Number of the shard of the frame cache that holds each clip, ``[N]``."""
        return self._spans[:, 0] // self._rows_per_shard

    def read(self, rows: NDArray[np.int64], frame_positions: NDArray[np.float64]) -> Samples:
        """Return the samples of some rows, as `Source` says."""
        start, count = self._spans[rows].T
        frame_rows = start + requested_frames(frame_positions, count)
        return Samples(
            frames=torch.from_numpy(self._read_frames(frame_rows)),
            audio=torch.from_numpy(self._read_audio(self._sound_rows[rows])),
            labels=self.labels[torch.from_numpy(rows)],
        )


@contextmanager
def _damage_is_one_sentence(path: Folder) -> Iterator[None]:
    """Turn every error that Zarr raises on damaged files into one sentence.

    Zarr checks neither the JSON that it reads nor the values in the JSON, so a damaged file raises
    almost any exception.

    Raises:
        UserError: Zarr could not read the array.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except OSError as error:
        if error.errno is None:
            raise damaged_error(path) from None
        raise unreadable_error(path, error) from None
    except Exception:
        raise damaged_error(path) from None


def _open_array(folder: Folder, name: str) -> "zarr.Array[Any]":
    """Open an array of a cache without reading its rows."""
    path = folder / name
    with _damage_is_one_sentence(path / "zarr.json"):
        # Version 2 of the format knows filters that execute what they read.
        array = zarr.open_group(str(folder), mode="r", zarr_format=3, use_consolidated=False)[name]
        facts = array.metadata.to_dict()
        encoding = {"name": "default", "configuration": {"separator": "/"}}
        if not isinstance(array, zarr.Array) or facts["chunk_key_encoding"] != encoding:
            raise damaged_error(path / "zarr.json")
        if foreign := _codec_names(facts["codecs"]) - CODECS:
            raise damaged_error(path / "zarr.json", f"it names the codec {min(foreign)!r}")
    return array


def _codec_names(codecs: Any) -> set[str]:
    """Return the names of all codecs, also of the codecs inside a sharding codec."""
    names = set()
    for codec in codecs:
        names.add(codec["name"])
        configuration = codec.get("configuration") or {}
        for inner in ("codecs", "index_codecs"):
            names |= _codec_names(configuration.get(inner, ()))
    return names


def _read_small(folder: Folder, name: str, dtype: Any = None, dimensions: int = 1) -> NDArray[Any]:
    """Read a whole array of a single chunk.

    Raises:
        UserError: the array is damaged, or has another type or other dimensions.
    """
    array, chunk = _open_array(folder, name), folder / small_array_files(name, dimensions)[1]
    # Zarr reads a chunk without a file as zeros.
    if not chunk.exists():
        raise unreadable_error(chunk, FileNotFoundError())
    if array.ndim != dimensions or array.chunks != array.shape or (dtype and array.dtype != dtype):
        raise damaged_error(folder / name / "zarr.json")
    with _damage_is_one_sentence(chunk):
        return np.asarray(array[:])


def _key_bytes(folder: Folder) -> bytes:
    """Return the bytes of the keys of a cache; the same keys have the same bytes.

    Raises:
        UserError: the bytes are not the bytes that were written.
    """
    chunk = folder / small_array_files("key", 1)[1]
    try:
        data = chunk.read_bytes()
    except OSError as error:
        raise unreadable_error(chunk, error) from None
    if not has_right_crc(data):
        raise damaged_error(chunk)
    return data


def _row_reader(
    folder: Folder, array: "zarr.Array[Any]"
) -> Callable[[NDArray[np.int64]], NDArray[Any]]:
    """Return the fastest function there is that takes rows from the large array of a cache."""
    if array.shards is None:
        raise damaged_error(folder / "zarr.json")
    if isinstance(folder, Path) and not isinstance(folder, UPath):
        return MappedArray(folder, array).take
    rows_per_shard = array.shards[0]

    @cache
    def require_shard(number: int) -> None:
        # Zarr reads a shard without a file as zeros.
        path = folder.parent / shard_file(folder.name, number, array.ndim - 1)
        if not path.exists():
            raise unreadable_error(path, FileNotFoundError())

    def read(rows: NDArray[np.int64]) -> NDArray[Any]:
        for number in np.unique(rows // rows_per_shard):
            require_shard(int(number))
        with _damage_is_one_sentence(folder):
            return np.asarray(array.oindex[rows])

    if array.nbytes <= IN_MEMORY_BYTES:
        return read(np.arange(array.shape[0])).__getitem__
    return read
