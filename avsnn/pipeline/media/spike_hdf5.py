"""Reads spikes of cochleas from HDF5 files: the layouts of N-TIDIGITS18 and of SHD."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from avsnn.pipeline.media.errors import MediaError, damage_is_one_phrase
from avsnn.pipeline.media.events import Events, Sensor

if TYPE_CHECKING:
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

DAMAGED = "cannot be read as HDF5"

NTIDIGITS = Sensor(polarities=1, height=1, width=64)
SHD = Sensor(polarities=1, height=1, width=700)

# An array with more bytes than this is a mistake or a trap: utterances of the known data sets have
# some 10,000 spikes. HDF5 takes the memory of a whole chunk to read a part of the chunk.
MAX_BYTES = 2**28

# Numbers of the filters that are part of HDF5 or h5py: deflate, shuffle, fletcher32, szip, nbit,
# scaleoffset and LZF. For any other filter, HDF5 would load a library that it finds on the machine.
FILTERS = (1, 2, 3, 4, 5, 6, 32000)

# Names in an HDF5 file, such as the key ``man-ae-a-12o``. HDF5 takes the group itself for ".", and
# ends a name at the character 0.
NAME = re.compile(r"\w[\w.-]*")

# The files that this process has open, with time of change in ns and size in bytes. The file that
# was read last is the last.
_opened: dict[Path, tuple[tuple[int, int], h5py.File]] = {}
MAX_OPEN = 4


def list_ntidigits(file: Path) -> list[str]:
    """Return the recordings of a file of N-TIDIGITS18, as ``train/KEY`` and ``test/KEY``.

    ``train_labels`` and ``test_labels`` list the keys, such as ``man-ae-a-12o``.

    Raises:
        MediaError: the file is no HDF5 file or is damaged, a list is missing, or a key is no text.
    """
    names = []
    with damage_is_one_phrase(DAMAGED):
        opened = _open(file)
        for part in ("train", "test"):
            for key in np.asarray(_dataset(opened, f"{part}_labels")[:]).tolist():
                text = key.decode("utf-8", "replace") if isinstance(key, bytes) else ""
                if not NAME.fullmatch(text):
                    raise MediaError(f"has the key {key!r} in {part}_labels, which is no name")
                names.append(f"{part}/{text}")
    # A key that is listed twice is one utterance.
    return list(dict.fromkeys(names))


def read_ntidigits(file: Path, member: str) -> Events:
    """Return the spikes of an utterance of N-TIDIGITS18.

    ``PART_addresses/KEY`` holds channels from 0 to 63, ``PART_timestamps/KEY`` holds times in s.
    Times may fall, as in `read_shd`.

    Raises:
        MediaError: the file is damaged, the utterance is not there, a channel is outside of the
            cochlea, or a time is negative or no finite number.
    """
    part, _, key = member.partition("/")
    if part not in ("train", "test") or not key:
        raise MediaError("is no name of the form train/KEY or test/KEY")
    with damage_is_one_phrase(DAMAGED):
        opened = _open(file)
        channels = np.asarray(_dataset(opened, f"{part}_addresses/{key}")[:])
        times = np.asarray(_dataset(opened, f"{part}_timestamps/{key}")[:])
    return _spikes(times, channels, NTIDIGITS)


def list_shd(file: Path) -> list[str]:
    """Return the recordings of a file of SHD, as ``NUMBER-SPEAKER-LABEL``, such as ``00017-4-12``.

    Raises:
        MediaError: the file is no HDF5 file or is damaged, or a list is missing or has another
            length than the others.
    """
    with damage_is_one_phrase(DAMAGED):
        opened = _open(file)
        count = len(_dataset(opened, "spikes/times"))
        columns = {
            name: np.asarray(_dataset(opened, name)[:]) for name in ("labels", "extra/speaker")
        }
        columns["spikes/units"] = np.empty(len(_dataset(opened, "spikes/units")))
    for name, values in columns.items():
        if len(values) != count:
            raise MediaError(f"has {count:,} utterances, but {len(values):,} entries in {name}")
        if name != "spikes/units" and values.dtype.kind not in "iu":
            raise MediaError(f"has no whole numbers in {name}")
    pairs = zip(columns["extra/speaker"], columns["labels"], strict=True)
    return [_shd_name(i, speaker, label) for i, (speaker, label) in enumerate(pairs)]


def read_shd(file: Path, member: str) -> Events:
    """Return the spikes of an utterance of SHD.

    ``spikes/times`` holds times in s (float16 in the original), and ``spikes/units`` holds channels
    from 0 to 699. Times may fall: the publishers' code (lauscher) writes times that rise, but no
    publisher states an order, and the real files were not at hand to look, so a check of the order
    could refuse a whole real data set. Event frames need no order.

    Raises:
        MediaError: the file is damaged, the utterance is not there, a channel is outside of the
            cochlea, or a time is negative or no finite number.
    """
    import h5py

    digits = member.partition("-")[0]
    with damage_is_one_phrase(DAMAGED):
        opened = _open(file)
        names = ("spikes/times", "spikes/units", "extra/speaker", "labels")
        arrays = [_dataset(opened, name) for name in names]
        # Python refuses to convert thousands of digits.
        if not re.fullmatch(r"[0-9]{1,9}", digits) or int(digits) >= min(map(len, arrays)):
            raise MediaError(f"is not among the {len(arrays[0]):,} utterances")
        for name, array in zip(names[:2], arrays[:2], strict=True):
            kind = h5py.check_vlen_dtype(array.dtype)
            if not isinstance(kind, np.dtype) or kind.kind not in "fiu":
                raise MediaError(f"has {array.dtype} in {name}, not rows of numbers")
        times, units, speaker, label = (array[int(digits)] for array in arrays)
    if member != (there := _shd_name(int(digits), speaker, label)):
        raise MediaError(f"is not in the file, which has {there} in this place")
    return _spikes(np.asarray(times), np.asarray(units), SHD)


def _shd_name(number: int, speaker: Any, label: Any) -> str:
    return f"{number:05d}-{speaker}-{label}"


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
    numbers = all(a.dtype.kind in "fiu" and a.dtype.itemsize <= 8 for a in (times, channels))
    if not numbers:
        raise MediaError(f"has {times.dtype} as times and {channels.dtype} as channels")
    if not (np.isfinite(times).all() and (times >= 0).all()):
        raise MediaError("has a time that is negative or no finite number")
    if not ((channels >= 0) & (channels < sensor.width) & (channels == np.floor(channels))).all():
        raise MediaError(f"has a channel that is not a whole number from 0 to {sensor.width - 1}")
    return Events(
        # Whole numbers would be taken for us.
        t=times.astype(times.dtype.newbyteorder("=") if times.dtype.kind == "f" else np.float64),
        x=channels.astype(np.uint8 if sensor.width <= 256 else np.uint16),
        y=np.zeros(len(times), np.uint8),
        p=np.zeros(len(times), np.uint8),
        sensor=sensor,
    )


def _open(file: Path) -> h5py.File:
    """Return an HDF5 file, opened once for all of its recordings, or again after a change.

    A file that leaves the table is closed when nobody reads the file any more.
    """
    # Commands that read no HDF5 file do not wait for the import.
    import h5py

    stat = file.stat()
    state = (stat.st_mtime_ns, stat.st_size)
    known = _opened.pop(file, None)
    if known is None or known[0] != state:
        # As long as a file is open, HDF5 gives what it remembers of the file, and not the change.
        del known
        known = (state, h5py.File(file, "r", locking=False))
    while len(_opened) >= MAX_OPEN:
        del _opened[next(iter(_opened))]
    _opened[file] = known
    return known[1]


def _dataset(file: h5py.File, path: str) -> h5py.Dataset:
    """Return an array ``[N]`` of an HDF5 file, whose bytes are in this file.

    Raises:
        MediaError: the array is not there, is behind a link, has not one dimension, is absurdly
            large, keeps its bytes in another file, or needs a filter that HDF5 does not have.
    """
    import h5py

    found: Any = file
    for name in path.split("/"):
        is_there = isinstance(found, h5py.Group) and NAME.fullmatch(name)
        link = found.get(name, getlink=True) if is_there else None
        if link is None:
            raise MediaError(f"has no {path}")
        if not isinstance(link, h5py.HardLink):
            raise MediaError(f"has a link in place of {path}")
        found = found[name]
    if not isinstance(found, h5py.Dataset):
        raise MediaError(f"has a group in place of the array {path}")
    if found.is_virtual or found.external:
        raise MediaError(f"keeps {path} in another file")
    if found.ndim != 1:
        raise MediaError(f"has {found.ndim} dimensions in {path}, not 1")
    stored = found.id.get_create_plist()
    for code, *_ in map(stored.get_filter, range(stored.get_nfilters())):
        if code not in FILTERS:
            raise MediaError(f"needs the filter {code} for {path}, which is no part of HDF5")
    size = found.id.get_type().get_size()
    for whole, entries in (("", found.size), ("a chunk of ", math.prod(found.chunks or (0,)))):
        if entries * size > MAX_BYTES:
            number = f"{entries * size:,} bytes in {whole}{path}"
            raise MediaError(f"has {number}, and the limit is {MAX_BYTES:,}")
    return found
