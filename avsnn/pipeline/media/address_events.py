"""Parses recordings of event cameras: AEDAT 2.0 of the DVS128, and the files of N-MNIST."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.events import Events, Sensor

DVS128 = Sensor(polarities=2, height=128, width=128)

# N-MNIST was recorded by an ATIS, whose files keep the 34 x 34 px around the digit.
NMNIST = Sensor(polarities=2, height=34, width=34)

AEDAT_MARK = b"#!AER-DAT2.0"

# The files of the ATIS mark an overflow of their clock by an event in this row.
OVERFLOW_ROW = 240


def parse_aedat(data: bytes) -> Events:
    """Return the events of an AEDAT 2.0 file of a DVS128.

    Lines that begin with ``#`` are the header. Records of 8 bytes follow, big-endian: 4 bytes of
    address and 4 bytes of time in us. Bit 0 of the address is the polarity, bits 1 to 7 are the
    column and bits 8 to 14 are the row, both counted from the far corner of the picture.

    Raises:
        MediaError: the header is another one or has no end, the records are cut, an address is not
            of a DVS128, the times fall, or there are no events.
    """
    if data[: data.find(b"\n") + 1].rstrip() != AEDAT_MARK:
        raise MediaError(f"does not begin with the line {AEDAT_MARK.decode()}")
    start = 0
    # No address begins with the byte of "#", because the upper two bytes of an address are 0.
    while data[start : start + 1] == b"#":
        start = data.find(b"\n", start) + 1
        if not start:
            raise MediaError("has a header without an end")
    records = _records(data, start, 8)
    address, t = (column.astype(np.uint32) for column in records.view(">u4").T)
    if address.max() >= 1 << 15:
        first = int(np.argmax(address >= 1 << 15))
        raise MediaError(
            f"has the address {address[first]:#x} at event {first:,}, which no DVS128 has"
        )
    low = records[:, 3].copy()
    return Events(
        t=_require_rising(t),
        x=np.uint8(127) - (low >> np.uint8(1)),
        y=np.uint8(127) - records[:, 2],
        p=low & np.uint8(1),
        sensor=DVS128,
    )


def parse_nmnist(data: bytes) -> Events:
    """Return the events of a file of N-MNIST.

    A record has 40 bits, big-endian: 8 bits of column, 8 bits of row, 1 bit of polarity and 23 bits
    of time in us.

    Raises:
        MediaError: the records are cut, an address is outside of 34 x 34 px or marks an overflow,
            the times fall, or there are no events.
    """
    records = _records(data, 0, 5)
    x, y = records[:, 0].copy(), records[:, 1].copy()
    if x.max() >= NMNIST.width or y.max() >= NMNIST.height:
        raise MediaError(_pixel_outside(x, y))
    # The last 32 bits of a record are the row, the polarity and the time.
    t = np.ndarray(len(records), ">u4", records, offset=1, strides=(5,)).astype(np.uint32)
    t &= 0x7FFFFF
    return Events(t=_require_rising(t), x=x, y=y, p=records[:, 2] >> np.uint8(7), sensor=NMNIST)


def _pixel_outside(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> str:
    """Return what is wrong with the first event outside of N-MNIST's pixels."""
    first = int(np.argmax((x >= NMNIST.width) | (y >= NMNIST.height)))
    if y[first] == OVERFLOW_ROW:
        mark = f"a mark of an overflow (row {OVERFLOW_ROW}) at event {first:,}"
        return f"has {mark}, which the files of N-MNIST do not have"
    pixel = f"the pixel ({x[first]}, {y[first]}) at event {first:,}"
    return f"has {pixel}, outside of {NMNIST.width} x {NMNIST.height} px"


def _records(data: bytes, start: int, size: int) -> NDArray[np.uint8]:
    """Return the records of a file, ``[E, size]`` bytes.

    Raises:
        MediaError: there are no records, or the last record is cut.
    """
    body = len(data) - start
    if body % size:
        raise MediaError(f"has {body:,} bytes of events, no multiple of {size}: it is cut")
    if not body:
        raise MediaError("holds no events")
    return np.frombuffer(data, np.uint8, offset=start).reshape(-1, size)


def _require_rising(t: NDArray[Any]) -> NDArray[Any]:
    """Return the times of events in us.

    Raises:
        MediaError: a time is before the time of the event before.
    """
    falls = t[1:] < t[:-1]
    if falls.any():
        i = int(np.argmax(falls))
        raise MediaError(
            f"has times that fall, from {t[i]:,} to {t[i + 1]:,} us at event {i + 1:,}"
        )
    return t
