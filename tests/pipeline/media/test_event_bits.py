"""The bits of event recordings, as published, and recordings of a real camera."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.pipeline.media.address_events import parse_aedat, parse_nmnist
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.event_files import list_recordings, read_recording
from avsnn.pipeline.media.events import Events
from tests.event_files import aedat_bytes, nmnist_bytes

HEADER = b"#!AER-DAT2.0\r\n"

Parse = Callable[[bytes], Events]


def columns(events: Events) -> list[tuple[int, int, int, int]]:
    return list(zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True))


def drawn(side: int, time_bits: int) -> st.SearchStrategy[list[tuple[int, int, int, int]]]:
    pixel = st.integers(0, side - 1)
    event = st.tuples(st.integers(0, 2**time_bits - 1), pixel, pixel, st.integers(0, 1))
    return st.lists(event, min_size=1, max_size=50).map(sorted)


@pytest.mark.parametrize(
    ("record", "event"),
    [
        # Address 0 is the far corner: column 127 - 0, row 127 - 0.
        ("00000000 00000000", (0, 127, 127, 0)),
        ("00000001 00000001", (1, 127, 127, 1)),
        ("000000fe 00000100", (256, 0, 127, 0)),
        ("00007f00 00010000", (65536, 127, 0, 0)),
        ("00007fff ffffffff", (2**32 - 1, 0, 0, 1)),
        # Row 0x12, column 0x34, OFF.
        ("00001268 01020304", (0x01020304, 127 - 0x34, 127 - 0x12, 0)),
    ],
)
def test_the_bits_of_an_aedat_record(record: str, event: tuple[int, int, int, int]) -> None:
    assert columns(parse_aedat(HEADER + bytes.fromhex(record))) == [event]


@pytest.mark.parametrize(
    ("record", "event"),
    [
        ("00 00 00 00 00", (0, 0, 0, 0)),
        ("21 00 00 00 01", (1, 33, 0, 0)),
        ("00 21 80 00 00", (0, 0, 33, 1)),
        ("01 02 ff ff ff", (2**23 - 1, 1, 2, 1)),
        ("03 04 7f 00 00", (0x7F0000, 3, 4, 0)),
        ("05 06 81 02 03", (0x010203, 5, 6, 1)),
    ],
)
def test_the_bits_of_an_nmnist_record(record: str, event: tuple[int, int, int, int]) -> None:
    assert columns(parse_nmnist(bytes.fromhex(record))) == [event]


@given(drawn(128, 32))
def test_an_aedat_file_gives_its_events(events: list[tuple[int, int, int, int]]) -> None:
    assert columns(parse_aedat(aedat_bytes(*zip(*events, strict=True)))) == events


@given(drawn(34, 23))
def test_an_nmnist_file_gives_its_events(events: list[tuple[int, int, int, int]]) -> None:
    assert columns(parse_nmnist(nmnist_bytes(*zip(*events, strict=True)))) == events


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_one_error(data: bytes) -> None:
    for parse, start in ((parse_aedat, b""), (parse_aedat, HEADER), (parse_nmnist, b"")):
        try:
            events = parse(start + data)
        except MediaError:
            continue
        assert len(events.t) > 0
        assert (np.diff(events.t.astype(np.int64)) >= 0).all()
        assert max(events.x.max(), events.y.max()) < events.sensor.width


@pytest.mark.parametrize(
    ("parse", "data", "words"),
    [
        (parse_aedat, b"", "does not begin with #!AER-DAT2.0"),
        (parse_aedat, b"#!AER-DAT3.1\r\n" + bytes(8), "does not begin with #!AER-DAT2.0"),
        (parse_aedat, HEADER[:-2], "has a header without an end"),
        (parse_aedat, HEADER + b"# no end", "has a header without an end"),
        (parse_aedat, HEADER, "holds no events"),
        (parse_aedat, HEADER + bytes(9), "has 9 bytes of events, no multiple of 8: it is cut"),
        (parse_aedat, HEADER + bytes(8) + b"\0\0\x80\0\0\0\0\1", "address 0x8000 at event 1,"),
        (parse_aedat, HEADER + b"\x80\0\0\0\0\0\0\1", "address 0x80000000 at event 0,"),
        (
            parse_aedat,
            HEADER + bytes(7) + b"\2" + bytes(7) + b"\1",
            "fall, from 2 to 1 us at event 1",
        ),
        (parse_nmnist, b"", "holds no events"),
        (parse_nmnist, bytes(6), "has 6 bytes of events, no multiple of 5: it is cut"),
        (parse_nmnist, bytes(5) + b"\x22\0\0\0\0", r"has the pixel \(34, 0\) at event 1,"),
        (parse_nmnist, b"\0\x22\0\0\0", r"has the pixel \(0, 34\) at event 0,"),
        (parse_nmnist, bytes(5) + b"\0\xf0\0\0\0", r"mark of an overflow \(row 240\) at event 1,"),
        (parse_nmnist, b"\0\0\0\0\2\0\0\0\0\1", "has times that fall, from 2 to 1 us at event 1"),
    ],
)
def test_damage_has_its_reason(parse: Parse, data: bytes, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        parse(data)


# File, number of events, last time in us, number of ON events, columns, rows, all as the README of
# the recordings gives them; the rows and columns there are those of the file.
REAL = [
    ("mnist_0_scale04_0001.aedat", 15_744, 2_210_588, 7_874, (0, 126), (1, 127)),
    ("mnist_0_scale08_0001_qt1.aedat", 5_078, 196_557, 2_344, (0, 125), (1, 126)),
]


@pytest.mark.parametrize(("name", "count", "last", "on", "x", "y"), REAL)
def test_recordings_of_a_real_camera(
    shared_data: Path,
    name: str,
    count: int,
    last: int,
    on: int,
    x: tuple[int, int],
    y: tuple[int, int],
) -> None:
    path = shared_data / "mnistdvs" / name
    assert list_recordings(path, "aedat2") == [""]
    events = read_recording(path, "", "aedat2")
    assert (len(events.t), events.t[0], events.t[-1], events.p.sum()) == (count, 0, last, on)
    assert (127 - int(events.x.max()), 127 - int(events.x.min())) == x
    assert (127 - int(events.y.max()), 127 - int(events.y.min())) == y
