"""The events of one recording as an .npz file, the member of a shard.

The file holds five arrays: ``t``, ``x``, ``y`` and ``p`` of `Events` (each ``[E]``), and ``sensor``
``[3]`` with polarities, height and width. Plain `numpy.load` and plain `webdataset` read the file.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.events import Events, Sensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAYS = Events._fields

# No event sensor has as many pixels or channels. The limit keeps false sizes out of memory.
MAX_ADDRESSES = 2**24

# The start of an .npy file of version 1.0, and the text of its header for an array of one axis.
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<|][iuf][1248])', 'fortran_order': False, 'shape': \((\d{1,18}),\), \} *\n"
)


def event_npz(events: Events) -> bytes:
    """Return the bytes of an .npz file that holds the events without loss.

    The times keep their type. The addresses are stored in the smallest unsigned type that holds
    every address of the sensor. The arrays are not compressed: for a real recording of 15,744
    events, compression saves 46 % of the bytes, but the file is then written 13 times as slowly and
    read three times as slowly, and its bytes depend on the version of zlib.

    Args:
        events: the events of one recording. The same events give the same bytes, on every machine
            and on every day.

    Raises:
        MediaError: the events are inconsistent, as in :func:`read_event_npz`.
    """
    _require_consistent(events)
    polarities, height, width = sensor = events.sensor
    arrays = {
        "t": events.t.astype(events.t.dtype.newbyteorder("<"), copy=False),
        "x": events.x.astype(_address_type(width), copy=False),
        "y": events.y.astype(_address_type(height), copy=False),
        "p": events.p.astype(_address_type(polarities), copy=False),
        "sensor": np.array(sensor, "<i8"),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ARRAYS:
            array = io.BytesIO()
            np.lib.format.write_array(array, arrays[name], version=(1, 0), allow_pickle=False)
            # `ZipInfo` without a date has the date 1980-01-01, so the bytes do not depend on the
            # day. The system is set, because Windows would have another number.
            member = zipfile.ZipInfo(f"{name}.npy")
            member.create_system = 3
            archive.writestr(member, array.getvalue())
    return file.getvalue()


def read_event_npz(data: bytes) -> Events:
    """Return the events that :func:`event_npz` wrote; the arrays are read-only.

    Nothing is allocated from a size that the file declares: every array is a view of bytes that the
    file holds.

    Raises:
        MediaError: the file is damaged, has other arrays than `event_npz` writes, or holds events
            that are inconsistent: lengths that differ, addresses outside the sensor, or times that
            are not finite.
    """
    arrays = {name: _read_npy(name, content) for name, content in _read_members(data).items()}
    sensor = arrays["sensor"]
    if sensor.dtype != np.int64 or len(sensor) != 3:
        raise MediaError("has a sensor that is not three integers: polarities, height, width")
    events = Events(
        t=arrays["t"],
        x=arrays["x"],
        y=arrays["y"],
        p=arrays["p"],
        sensor=Sensor(*sensor.tolist()),
    )
    _require_consistent(events)
    return events


def _read_members(data: bytes) -> dict[str, bytes]:
    """Return the content of every array's member in an .npz file, by the name of the array."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
            if sorted(names) != sorted(ARRAYS):
                shown = ", ".join(names[:8]) or "none"
                raise MediaError(f"has the arrays {shown!a}, and needs {', '.join(ARRAYS)}")
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                # The size of a compressed member is a promise, which a false file does not keep.
                raise MediaError("has compressed arrays, and an event file has none")
            return {
                name: archive.read(member)
                for name, member in zip(names, archive.infolist(), strict=True)
            }
    except MediaError:
        raise
    except Exception as error:
        # `zipfile` raises errors of many types for damaged bytes, such as BadZipFile, EOFError,
        # NotImplementedError, RuntimeError and struct.error.
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise MediaError(f"is no whole .npz file: {words}") from error


def _read_npy(name: str, content: bytes) -> NDArray[Any]:
    """Return the array of one axis in an .npy file as a read-only view of its bytes."""
    start = len(_NPY_MAGIC) + 2
    length = int.from_bytes(content[start - 2 : start], "little")
    header = _NPY_HEADER.fullmatch(content[start : start + length])
    if not content.startswith(_NPY_MAGIC) or header is None:
        raise MediaError(f"has an array {name} that is not one row of plain numbers")
    dtype = _dtype(name, header[1].decode())
    declared, held = int(header[2]) * dtype.itemsize, len(content) - start - length
    if declared != held:
        raise MediaError(f"declares {declared:,} bytes of {name}, and holds {held:,}")
    return np.frombuffer(content, dtype, offset=start + length)


def _dtype(name: str, text: str) -> np.dtype[Any]:
    try:
        return np.dtype(text)
    except TypeError:  # A float of one byte.
        raise MediaError(f"has an array {name} of the type {text}, which no array has") from None


def _require_consistent(events: Events) -> None:
    """Refuse events that contradict each other or their sensor.

    Raises:
        MediaError: the sensor is impossible, the lengths of the arrays differ, an array has a wrong
            type, an address is outside the sensor, or a time is no finite number.
    """
    polarities, height, width = events.sensor
    sides_are_possible = height >= 1 and width >= 1 and height * width <= MAX_ADDRESSES
    if polarities not in (1, 2) or not sides_are_possible:
        raise MediaError(
            f"has a sensor of {polarities} polarities, {height} rows and {width} columns, which no "
            "sensor has"
        )
    lengths = {name: len(getattr(events, name)) for name in ("t", "x", "y", "p")}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{length:,} of {name}" for name, length in lengths.items())
        raise MediaError(f"has arrays of different lengths: {shown}")
    if events.t.dtype.kind not in "iuf" or events.t.dtype.itemsize > 8:
        raise MediaError(f"has times of the type {events.t.dtype}, which are no plain numbers")
    require_finite_times(events.t)
    for name, size in (("x", width), ("y", height), ("p", polarities)):
        addresses = getattr(events, name)
        if addresses.dtype.kind != "u":
            raise MediaError(f"has {name} of the type {addresses.dtype}, and needs whole numbers")
        if len(addresses) and addresses.max() >= size:
            raise MediaError(
                f"has an event at {name} = {addresses.max()}, and {name} of the sensor ends at "
                f"{size - 1}"
            )


def require_finite_times(t: NDArray[np.integer | np.floating]) -> None:
    """Refuse times without a first, a last and a length of the recording in float64.

    Raises:
        MediaError: a time is no finite number, or the times are too far apart.
    """
    if t.dtype.kind == "f" and len(t) and not np.isfinite(float(t.max()) - float(t.min())):
        raise MediaError("has times that no clock gives: not finite, or too far apart")


def _address_type(size: int) -> str:
    """Return the smallest unsigned type that holds the addresses from 0 to ``size - 1``."""
    return next(
        name for name, limit in (("u1", 2**8), ("<u2", 2**16), ("<u4", 2**32)) if size <= limit
    )
