"""Reads spikes of cochleas from HDF5 files: the layouts of N-TIDIGITS18 and of SHD."""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.events import Events, Sensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

NTIDIGITS = Sensor(polarities=1, height=1, width=64)
SHD = Sensor(polarities=1, height=1, width=700)

# A recording or a list with more entries than this is a mistake or a trap: utterances of the known
# data sets have some 10,000 spikes.
MAX_ENTRIES = 2**25


def list_ntidigits(file: Path) -> list[str]:
    """Return the recordings of a file of N-TIDIGITS18, as ``train/KEY`` and ``test/KEY``.

    ``train_labels`` and ``test_labels`` list the keys, such as ``man-ae-a-12o``.

    Raises:
        MediaError: the file is no HDF5 file or is damaged, a list is missing, or a key is no text.
    """
    names = []
    with _damage_is_one_phrase():
        opened = _open(file)
        for part in ("train", "test"):
            for key in np.asarray(_dataset(opened, f"{part}_labels", dimensions=1)[:]).tolist():
                text = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
                if not isinstance(text, str) or not text.isprintable() or "/" in text or not text:
                    raise MediaError(f"has the key {key!r} in {part}_labels, which is no name")
                names.append(f"{part}/{text}")
    return names


def read_ntidigits(file: Path, member: str) -> Events:
    """Return the spikes of an utterance of N-TIDIGITS18.

    ``PART_addresses/KEY`` holds channels from 0 to 63, ``PART_timestamps/KEY`` holds times in s.

    Raises:
        MediaError: the file is damaged, the utterance is not there, a channel is outside of the
            cochlea, or a time falls, is negative, or is no finite number.
    """
    part, _, key = member.partition("/")
    with _damage_is_one_phrase():
        opened = _open(file)
        channels = np.asarray(_dataset(opened, f"{part}_addresses/{key}", dimensions=1)[:])
        times = np.asarray(_dataset(opened, f"{part}_timestamps/{key}", dimensions=1)[:])
    events = _spikes(times, channels, NTIDIGITS)
    # A chip wrote these spikes as they came.
    falls = events.t[1:] < events.t[:-1]
    if falls.any():
        i = int(np.argmax(falls))
        raise MediaError(
            f"has times that fall, from {events.t[i]} to {events.t[i + 1]} s at event {i + 1:,}"
        )
    return events


def list_shd(file: Path) -> list[str]:
    """Return the recordings of a file of SHD, as ``NUMBER-SPEAKER-LABEL``, such as ``00017-4-12``.

    Raises:
        MediaError: the file is no HDF5 file or is damaged, or a list is missing or has another
            length than the others.
    """
    with _damage_is_one_phrase():
        opened = _open(file)
        count = len(_dataset(opened, "spikes/times", dimensions=1))
        columns = {
            name: np.asarray(_dataset(opened, name, dimensions=1)[:])
            for name in ("labels", "extra/speaker")
        }
        columns["spikes/units"] = np.empty(len(_dataset(opened, "spikes/units", dimensions=1)))
    for name, values in columns.items():
        if len(values) != count:
            raise MediaError(f"has {count:,} utterances, but {len(values):,} entries in {name}")
        if name != "spikes/units" and values.dtype.kind not in "iu":
            raise MediaError(f"has no whole numbers in {name}")
    pairs = zip(columns["extra/speaker"], columns["labels"], strict=True)
    return [f"{i:05d}-{speaker}-{label}" for i, (speaker, label) in enumerate(pairs)]


def read_shd(file: Path, member: str) -> Events:
    """Return the spikes of an utterance of SHD.

    ``spikes/times`` holds times in s (float16 in the original), and ``spikes/units`` holds channels
    from 0 to 699. Nobody states that the times of this simulated cochlea rise, and event frames do
    not need an order, so any order is accepted.

    Raises:
        MediaError: the file is damaged, the utterance is not there, a channel is outside of the
            cochlea, or a time is negative or no finite number.
    """
    digits = member.partition("-")[0]
    with _damage_is_one_phrase():
        opened = _open(file)
        times, units = (_dataset(opened, f"spikes/{n}", dimensions=1) for n in ("times", "units"))
        if not digits.isdecimal() or int(digits) >= min(len(times), len(units)):
            raise MediaError(f"is not among the {len(times):,} utterances")
        number = int(digits)
        return _spikes(np.asarray(times[number]), np.asarray(units[number]), SHD)


def _spikes(times: NDArray[Any], channels: NDArray[Any], sensor: Sensor) -> Events:
    """Return spikes of a cochlea as events.

    Raises:
        MediaError: there are no spikes, the lengths differ, a channel is outside of the cochlea or
            no whole number, or a time is negative or no finite number.
    """
    if times.ndim != 1 or channels.ndim != 1 or len(times) != len(channels):
        raise MediaError(f"has {times.size:,} times, but {channels.size:,} channels")
    if not len(times):
        raise MediaError("holds no events")
    if times.dtype.kind not in "fiu" or channels.dtype.kind not in "fiu":
        raise MediaError(f"has {times.dtype} as times and {channels.dtype} as channels")
    if not (np.isfinite(times).all() and (times >= 0).all()):
        raise MediaError("has a time that is negative or no finite number")
    if not ((channels >= 0) & (channels < sensor.width) & (channels == np.floor(channels))).all():
        raise MediaError(f"has a channel that is not a whole number from 0 to {sensor.width - 1}")
    return Events(
        # Whole numbers would be taken for us.
        t=times if times.dtype.kind == "f" else times.astype(np.float64),
        x=channels.astype(np.uint8 if sensor.width <= 256 else np.uint16),
        y=np.zeros(len(times), np.uint8),
        p=np.zeros(len(times), np.uint8),
        sensor=sensor,
    )


@contextmanager
def _damage_is_one_phrase() -> Iterator[None]:
    """Turn what h5py raises for damaged files into one phrase.

    Raises:
        MediaError: h5py could not read the file.
        OSError: the file system failed.
    """
    try:
        yield
    except OSError as error:
        # h5py raises errors of HDF5 as an OSError without a number.
        if error.errno is not None:
            raise
        raise MediaError(f"cannot be read as HDF5: {_first_words(error)}") from None
    except (KeyError, ValueError, TypeError, RuntimeError, UnicodeError, OverflowError) as error:
        raise MediaError(f"cannot be read as HDF5: {_first_words(error)}") from None


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _open(file: Path) -> h5py.File:
    stat = file.stat()
    return _open_once(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _open_once(file: Path, mtime_ns: int, size: int) -> h5py.File:
    """Open an HDF5 file once for all of its recordings.

    Args:
        file: the file.
        mtime_ns: time of the last change of the file; a changed file is opened again.
        size: size of the file in bytes, for the same purpose.
    """
    # Commands that read no HDF5 file do not wait for the import.
    import h5py

    return h5py.File(file, "r", locking=False)


def _dataset(file: h5py.File, path: str, *, dimensions: int) -> h5py.Dataset:
    """Return an array of an HDF5 file, whose bytes are in this file.

    Raises:
        MediaError: the array is not there, is behind a link, has other dimensions, is absurdly
            large, or keeps its bytes in another file.
    """
    import h5py

    found: Any = file
    for name in path.split("/"):
        link = found.get(name, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise MediaError(f"has no {path}")
        if not isinstance(link, h5py.HardLink):
            raise MediaError(f"has a link in place of {path}")
        found = found[name]
    if not isinstance(found, h5py.Dataset):
        raise MediaError(f"has a group in place of the array {path}")
    if found.is_virtual or found.external:
        raise MediaError(f"keeps {path} in another file")
    if found.ndim != dimensions:
        raise MediaError(f"has {found.ndim} dimensions in {path}, not {dimensions}")
    if found.size > MAX_ENTRIES:
        raise MediaError(f"has {found.size:,} entries in {path}, and the limit is {MAX_ENTRIES:,}")
    return found
