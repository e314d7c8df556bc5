"""5. Caches to batches, in an order that is a pure function of seed, epoch and sample count."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from avsnn.errors import UserError
from avsnn.pipeline.files import Folder

# Up to here an array is decoded once into memory; beyond it, batch by batch from its shards.
IN_MEMORY_BYTES = 2 * 2**30


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


class ZarrSource:
    """The frame and audio cache of a data set, row for row the same clips.

    Args:
        frames: the Zarr group of ``FrameCache``.
        audio: the Zarr group of ``AudioCache``.

    Raises:
        UserError: a cache is missing, or they do not hold the same clips.
    """

    def __init__(self, *, frames: Folder, audio: Folder) -> None:
        for path in (frames, audio):
            if not (path / "zarr.json").exists():
                raise UserError(f"{path} is not a cache; run 'avsnn prepare' again.")
        images, sounds = (zarr.open_group(str(path), mode="r") for path in (frames, audio))
        self.keys: list[str] = [str(key) for key in _read(images, "key")]
        self.labels = torch.from_numpy(_read(images, "label").astype(np.int64))
        self._offsets = _read(images, "offsets").astype(np.int64)
        if self.keys != [str(key) for key in _read(sounds, "key")]:
            raise UserError(
                f"{frames} and {audio} hold different clips; run 'avsnn prepare' again."
            )
        self._frames = _load_if_small(images, "frames")
        self._audio = _load_if_small(sounds, "audio")

    def read(self, rows: NDArray[np.int64], frames: NDArray[np.float64]) -> Batch:
        """The samples of some rows.

        Args:
            rows: ``[B]``.
            frames: which frame of each clip, as a place in [0, 1) along it, ``[B]``.
        """
        start, stop = self._offsets[rows], self._offsets[rows + 1]
        chosen = start + (frames * (stop - start)).astype(np.int64)
        return Batch(
            rows=rows,
            frames=torch.from_numpy(_take(self._frames, chosen)),
            audio=torch.from_numpy(_take(self._audio, rows)),
            labels=self.labels[torch.from_numpy(rows)],
        )


def epoch_order(*, seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of ``count`` samples in an epoch, a pure function of its arguments."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches in ``count`` samples.

    Raises:
        UserError: there is none.
    """
    if count < batch_size:
        raise UserError(
            f"batch_size is {batch_size} but only {count} clips are there to train on; "
            "lower it with --set batch_size=N."
        )
    return count // batch_size


def sample_draws(
    *, seed: int, epoch: int, rows: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """``count`` uniform draws in [0, 1) for each sample, ``[B, count]``.

    They depend on the seed, the epoch and the sample alone: neither order nor batch changes how a
    sample is augmented.
    """
    # Counters of one key: the last word is the row, so the streams of two rows never meet.
    streams = (np.random.Philox(key=[seed, epoch], counter=[0, 0, 1, int(row)]) for row in rows)
    return np.stack([np.random.Generator(stream).random(count) for stream in streams])


def sample_noise(
    *, seed: int, epoch: int, rows: NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Standard normal noise for each sample, ``[B, *shape]``; as :func:`sample_draws`."""
    streams = (np.random.Philox(key=[seed, epoch], counter=[0, 0, 2, int(row)]) for row in rows)
    return np.stack(
        [np.random.Generator(s).standard_normal(shape, dtype=np.float32) for s in streams]
    )


def stream_epoch(
    source: ZarrSource, rows: NDArray[np.int64], *, batch_size: int, seed: int, epoch: int
) -> Iterator[Batch]:
    """Training batches: shuffled, a random frame of each clip, the last partial batch dropped.

    Raises:
        UserError: there are fewer rows than one batch takes.
    """
    steps = steps_per_epoch(len(rows), batch_size)
    shuffled = rows[epoch_order(seed=seed, epoch=epoch, count=len(rows))]
    blocks = np.split(shuffled[: steps * batch_size], steps)
    yield from _read_ahead(
        source,
        [
            (block, sample_draws(seed=seed, epoch=epoch, rows=block, count=1)[:, 0])
            for block in blocks
        ],
    )


def stream_once(source: ZarrSource, rows: NDArray[np.int64], *, batch_size: int) -> Iterator[Batch]:
    """Evaluation batches: every row once, in order, the middle frame of each clip."""
    blocks = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    yield from _read_ahead(source, [(block, np.full(len(block), 0.5)) for block in blocks])


def _read_ahead(
    source: ZarrSource, requests: list[tuple[NDArray[np.int64], NDArray[np.float64]]]
) -> Iterator[Batch]:
    """Reads the next batch while the current one is computed."""
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for request in requests:
            current, ahead = ahead, reader.submit(source.read, *request)
            if current is not None:
                yield current.result()
        if ahead is not None:
            yield ahead.result()


def _read(group: zarr.Group, name: str) -> NDArray[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)  # noqa: S101 - narrows the type
    return np.asarray(array[:])


def _load_if_small(group: zarr.Group, name: str) -> Any:
    array = group[name]
    assert isinstance(array, zarr.Array)  # noqa: S101 - narrows the type
    return array[:] if array.nbytes <= IN_MEMORY_BYTES else array


def _take(array: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    if isinstance(array, np.ndarray):
        return array[rows]
    return np.asarray(array.oindex[rows])
