"""5. Caches or shards to batches, in the order that ``order.py`` gives."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
import zarr
from fsspec import AbstractFileSystem
from fsspec.implementations.cached import SimpleCacheFileSystem
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from upath import UPath

from avsnn.errors import UserError
from avsnn.pipeline.extract import Sample, read_shards
from avsnn.pipeline.featurize import AudioSettings, FrameSettings, frame_row, frame_shape, sound_row
from avsnn.pipeline.files import Folder
from avsnn.pipeline.mapped import MappedArray
from avsnn.pipeline.order import Request

# Of an array in a store: up to here it is read once, beyond it batch by batch.
IN_MEMORY_BYTES = 2 * 2**30

# Batches that are read before they are asked for, by each worker.
AHEAD = 2

T = TypeVar("T")


class Batch(NamedTuple):
    """Samples as cached.

    Attributes:
        rows: which samples, ``[B]``.
        frames: one frame of each clip, ``[B, 3, H, W]`` uint8 RGB.
        audio: log-STFT images ``[B, 1, F, F]`` float32.
        labels: ``[B]`` int64.
    """

    rows: NDArray[np.int64]
    frames: Tensor
    audio: Tensor
    labels: Tensor

    def pinned(self) -> "Batch":
        """The same in memory that a GPU copies from by itself."""
        tensors = (tensor.pin_memory() for tensor in (self.frames, self.audio, self.labels))
        return Batch(self.rows, *tensors)


class Source(Protocol):
    """Samples of a data set by their rows, which are the same in every source of it.

    ``note`` is what a person should know of the way they are read, or nothing.
    """

    keys: list[str]
    labels: Tensor
    note: str

    def read(self, request: Request) -> Batch:
        """The samples that are asked for."""


class ZarrSource:
    """The frame and audio cache of a data set, row for row the same clips.

    Args:
        frames: the Zarr group of ``FrameCache``.
        audio: the Zarr group of ``AudioCache``.

    Raises:
        UserError: a cache is missing, or they do not hold the same clips.
    """

    note = ""

    def __init__(self, *, frames: Folder, audio: Folder) -> None:
        for path in (frames, audio):
            if not (path / "zarr.json").exists():
                raise UserError(f"{path} is not a cache; run 'avsnn prepare' again.")
        images, sounds = (zarr.open_group(str(path), mode="r") for path in (frames, audio))
        self.keys: list[str] = _whole(images, "key").tolist()
        self.labels = torch.from_numpy(_whole(images, "label").astype(np.int64))
        self._offsets = _whole(images, "offsets").astype(np.int64)
        if self.keys != _whole(sounds, "key").tolist():
            raise UserError(
                f"{frames} and {audio} hold different clips; run 'avsnn prepare' again."
            )
        self._frames = _rows_of(frames, images, "frames")
        self._audio = _rows_of(audio, sounds, "audio")

    def read(self, request: Request) -> Batch:
        """The samples that are asked for."""
        rows = request.rows
        start, stop = self._offsets[rows], self._offsets[rows + 1]
        return Batch(
            rows=rows,
            frames=torch.from_numpy(self._frames(start + _chosen(request, stop - start))),
            audio=torch.from_numpy(self._audio(rows)),
            labels=self.labels[torch.from_numpy(rows)],
        )


class ShardSource:
    """The WebDataset shards of a data set, read at random through the index beside each.

    Only the frame that is asked for is decoded. Gives what ``ZarrSource`` gives, to the bit. From a
    store that gives whole files only, as some HTTP servers do, each process copies a shard into its
    temporary folder when it first needs it: the order stays what it is.

    Args:
        shards: their folder.
        frames: how the cache would hold frames.
        audio: how it would hold sounds.

    Raises:
        UserError: there are none.
    """

    def __init__(self, *, shards: Folder, frames: FrameSettings, audio: AudioSettings) -> None:
        self._found = read_shards(shards)
        if not self._found:
            raise UserError(f"{shards} holds no shards; run 'avsnn prepare' again.")
        samples = [sample for _, sample in self._found]
        self.keys = [sample.key for sample in samples]
        self.labels = torch.tensor([sample.label for sample in samples])
        self._counts = np.array([sample.frames for sample in samples])
        self._shape = frame_shape(samples, frames)
        self._frames, self._audio = frames, audio
        self.note = ""
        self._store: AbstractFileSystem | None = None
        if isinstance(shards, UPath):
            self._store = shards.fs
            shard, sample = self._found[0]
            if not _gives_pieces(shards.fs, shard, next(iter(sample.members.values()))):
                self._store = SimpleCacheFileSystem(fs=shards.fs, cache_storage="TMP")
                self.note = (
                    f"{shards} gives whole files only: each shard is copied into a temporary "
                    "folder when it is first needed, by every process that reads"
                )

    def read(self, request: Request) -> Batch:
        """The samples that are asked for."""
        wanted = []
        chosen = _chosen(request, self._counts[request.rows])
        for row, frame in zip(request.rows, chosen, strict=True):
            shard, sample = self._found[row]
            image = next(name for name in sample.members if name.startswith(f"{frame}."))
            wanted += [(shard, sample.members[image]), (shard, sample.members["flac"])]
        data = _read_members(wanted, self._store)
        samples: list[Sample] = [self._found[row][1] for row in request.rows]
        images = [frame_row(image, self._shape, self._frames) for image in data[::2]]
        sounds = [
            sound_row(sound, sample.key, self._audio)
            for sound, sample in zip(data[1::2], samples, strict=True)
        ]
        return Batch(
            rows=request.rows,
            frames=torch.from_numpy(np.stack(images)),
            audio=torch.from_numpy(np.stack(sounds)),
            labels=self.labels[torch.from_numpy(request.rows)],
        )


class Loader:
    """Reads batches before they are asked for, in a thread or in worker processes.

    The order is that of the requests, however many workers there are. A context, which ends them.

    Args:
        opener: opens the source; called in each worker, since what Zarr and decoders hold does not
            survive a fork. A function that can be pickled.
        workers: processes; 0 reads in a thread of this one.
        pin: batches are for a GPU.
    """

    def __init__(self, opener: Callable[[], Source], *, workers: int, pin: bool) -> None:
        self._requests: Iterable[Request] = ()
        self._source = _Opened(opener)
        self._pin = pin
        self._processes: DataLoader[Batch] | None = None
        if workers:
            self._processes = DataLoader(
                self._source,
                sampler=_Current(self),
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=workers,
                prefetch_factor=AHEAD,
                persistent_workers=True,
                worker_init_fn=_leave_signals_to_the_parent,
                # Not from a fork server: workers would end with it where all are signalled.
                multiprocessing_context="spawn",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A DataLoader ends its workers when nobody refers to it.
        self._processes = None

    @property
    def source(self) -> Source:
        """The source, opened in this process."""
        return self._source.open()

    def read(self, requests: Iterable[Request]) -> Iterator[Batch]:
        """A batch for each request, one after the other."""
        self._requests = requests
        if self._processes is None:
            batches = _read_ahead(self._source, requests)
        else:
            batches = iter(self._processes)
        for batch in batches:
            yield batch.pinned() if self._pin else batch


class _Opened(Dataset[Batch]):
    """A source that each process opens for itself when first asked."""

    def __init__(self, opener: Callable[[], Source]) -> None:
        self._opener = opener
        self._source: Source | None = None

    def open(self) -> Source:
        if self._source is None:
            self._source = self._opener()
        return self._source

    def __getitem__(self, request: Request) -> Batch:
        return self.open().read(request)

    def __getstate__(self) -> dict[str, Any]:
        return {"_opener": self._opener, "_source": None}


class _Current:
    """The requests of the present pass, for a DataLoader that outlives it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Request]:
        return iter(self._loader._requests)


def _leave_signals_to_the_parent(_worker: int) -> None:
    """Who stops a run may signal all its processes; the first of them ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Once: a second SIGTERM is the parent's.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _as_it_is(batch: T) -> T:
    return batch


def _read_ahead(source: _Opened, requests: Iterable[Request]) -> Iterator[Batch]:
    """Reads the next batches while the current one is computed."""
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1) as reader:
        try:
            for request in requests:
                waiting.append(reader.submit(source.__getitem__, request))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            reader.shutdown(cancel_futures=True)


def _chosen(request: Request, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which frame of each clip."""
    return (request.places * counts).astype(np.int64)


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    array = group[name]
    assert isinstance(array, zarr.Array)  # noqa: S101 - narrows the type
    return array


def _whole(group: zarr.Group, name: str) -> NDArray[Any]:
    return np.asarray(_array(group, name)[:])


def _rows_of(
    folder: Folder, group: zarr.Group, name: str
) -> Callable[[NDArray[np.int64]], NDArray[Any]]:
    """What takes rows from the large array of a cache, by the fastest way there is."""
    array = _array(group, name)
    if isinstance(folder, Path) and not isinstance(folder, UPath):
        return MappedArray(folder / name, array).take
    if array.nbytes <= IN_MEMORY_BYTES:
        return np.asarray(array[:]).__getitem__
    return lambda rows: np.asarray(array.oindex[rows])


def _gives_pieces(store: AbstractFileSystem, shard: Folder, place: tuple[int, int]) -> bool:
    """Whether a store gives the part of a file that is asked for, and not all of it."""
    offset, size = place
    try:
        piece = store.cat_file(_path(shard), start=offset, end=offset + size)
    except (NotImplementedError, ValueError):
        return False
    return len(piece) == size


def _path(shard: Folder) -> str:
    """A file of a store, as the store names it."""
    return str(shard.path) if isinstance(shard, UPath) else str(shard)


def _read_members(
    wanted: list[tuple[Folder, tuple[int, int]]], store: AbstractFileSystem | None
) -> list[bytes]:
    """Pieces of shards by offset and size; of a store, all of them at once."""
    if store is None:
        return [os.pread(_descriptor(str(shard)), size, at) for shard, (at, size) in wanted]
    found: list[bytes] = store.cat_ranges(
        [_path(shard) for shard, _ in wanted],
        [offset for _, (offset, _) in wanted],
        [offset + size for _, (offset, size) in wanted],
        on_error="raise",
    )
    return found


@cache
def _descriptor(path: str) -> int:
    """An open shard, for as long as the process lives."""
    return os.open(path, os.O_RDONLY)
