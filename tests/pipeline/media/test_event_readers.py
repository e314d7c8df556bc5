"""Recordings of event sensors: bits of each format, round trips, containers, real recordings."""

import itertools
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.pipeline.media import sandbox
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.event_files import list_recordings, read_recording
from avsnn.pipeline.media.events import Events, Sensor
from tests.pipeline.media.event_encoders import (
    Event,
    aedat_bytes,
    nmnist_bytes,
    write_ntidigits,
    write_shd,
)

DVS128 = Sensor(2, 128, 128)
NMNIST = Sensor(2, 34, 34)


def rows(events: Events) -> list[tuple[int, ...]]:
    """The events as rows of column, row, polarity and time."""
    return list(zip(*(a.tolist() for a in (events.x, events.y, events.p, events.t)), strict=True))


def recordings(sensor: Sensor, last: int) -> st.SearchStrategy[list[Event]]:
    event = st.tuples(
        st.integers(0, sensor.width - 1),
        st.integers(0, sensor.height - 1),
        st.integers(0, 1),
        st.integers(0, last),
    )
    return st.lists(event, min_size=1).map(lambda events: sorted(events, key=lambda e: e[3]))


def test_the_bits_of_aedat(tmp_path: Path) -> None:
    file = tmp_path / "a.aedat"
    header = b"#!AER-DAT2.0\r\n# anything\r\n"
    # Bit 0 is the polarity, bits 1 to 7 are 127 - column, bits 8 to 14 are 127 - row.
    file.write_bytes(
        header
        + bytes.fromhex("00007af9 00000000")  # row 5: 0x7a, column 3: 0x7c, ON
        + bytes.fromhex("000000fe 00010203")  # row 127: 0, column 0: 0x7f, OFF
        + bytes.fromhex("00007f01 00010203")  # row 0: 0x7f, column 127: 0, ON
    )
    assert list_recordings(file, "aedat2") == [""]
    events = read_recording(file, "", "aedat2")
    assert rows(events) == [(3, 5, 1, 0), (0, 127, 0, 66051), (127, 0, 1, 66051)]
    assert events.sensor == DVS128
    assert [a.dtype for a in events[:4]] == ["u4", "u1", "u1", "u1"]


def test_the_bits_of_nmnist(tmp_path: Path) -> None:
    file = tmp_path / "00001.bin"
    # 8 bits of column, 8 bits of row, 1 bit of polarity, 23 bits of time.
    file.write_bytes(bytes.fromhex("1f02810203 2100010203 00217fffff 0000ffffff"))
    events = read_recording(file, "", "n-mnist")
    last = 2**23 - 1
    assert rows(events) == [(31, 2, 1, 66051), (33, 0, 0, 66051), (0, 33, 0, last), (0, 0, 1, last)]
    assert events.sensor == NMNIST
    assert [a.dtype for a in events[:4]] == ["u4", "u1", "u1", "u1"]


@given(recordings(DVS128, 2**32 - 1))
def test_what_is_written_as_aedat_is_read(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event]
) -> None:
    file = tmp_path_factory.getbasetemp() / "round.aedat"
    file.write_bytes(aedat_bytes(events))
    assert rows(read_recording(file, "", "aedat2")) == events


@given(recordings(NMNIST, 2**23 - 1))
def test_what_is_written_as_nmnist_is_read(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event]
) -> None:
    file = tmp_path_factory.getbasetemp() / "round.bin"
    file.write_bytes(nmnist_bytes(events))
    assert rows(read_recording(file, "", "n-mnist")) == events


@pytest.mark.parametrize(
    ("name", "count", "last", "on", "x", "y"),
    [
        ("mnist_0_scale04_0001", 15744, 2210588, 7874, (0, 126), (1, 127)),
        ("mnist_0_scale08_0001_qt1", 5078, 196557, 2344, (0, 125), (1, 126)),
    ],
)
def test_real_recordings_give_their_counts(
    shared_data: Path,
    name: str,
    count: int,
    last: int,
    on: int,
    x: tuple[int, int],
    y: tuple[int, int],
) -> None:
    events = read_recording(shared_data / "mnistdvs" / f"{name}.aedat", "", "aedat2")
    assert (len(events.t), events.t[0], events.t[-1], events.p.sum()) == (count, 0, last, on)
    # The counts were taken of the bits; the picture counts from the other side.
    for addresses, (least, most) in ((events.x, x), (events.y, y)):
        assert (addresses.min(), addresses.max()) == (127 - most, 127 - least)


@pytest.mark.parametrize("time", ["f2", ">f4", "f8", "u1"])
@pytest.mark.parametrize("channel", ["u1", ">i4", "i8", "f4"])
def test_ntidigits_is_read_from_any_type_of_number(tmp_path: Path, time: str, channel: str) -> None:
    file = tmp_path / "n.hdf5"
    test = {"woman-be-b-z": ([0.0, 0.0, 2.0], [5, 63, 0]), "man-ae-a-1o": ([1.0], [63])}
    write_ntidigits(file, {"man-ae-a-3": ([0.5, 1.0], [0, 1])}, test, time=time, channel=channel)
    assert list_recordings(file, "n-tidigits") == [
        "train/man-ae-a-3",
        "test/woman-be-b-z",
        "test/man-ae-a-1o",
    ]
    events = read_recording(file, "test/woman-be-b-z", "n-tidigits")
    assert rows(events) == [(5, 0, 0, 0.0), (63, 0, 0, 0.0), (0, 0, 0, 2.0)]
    assert events.t.dtype == ("f8" if time == "u1" else time.strip(">"))
    assert [a.dtype for a in events[1:4]] == ["u1", "u1", "u1"]
    assert events.sensor == Sensor(1, 1, 64)


def test_shd_is_read_in_the_precision_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "shd_train.h5"
    write_shd(file, [([0.5], [1]), ([0.1, 0.25, 0.75], [699, 0, 256])], [12, 4], [3, 11])
    assert list_recordings(file, "shd") == ["00000-3-12", "00001-11-4"]
    events = read_recording(file, "00001-11-4", "shd")
    assert events.t.dtype == np.float16
    assert rows(events) == [(699, 0, 0, float(np.float16(0.1))), (0, 0, 0, 0.25), (256, 0, 0, 0.75)]
    assert [a.dtype for a in events[1:4]] == ["u2", "u1", "u1"]
    assert events.sensor == Sensor(1, 1, 700)


def test_times_of_a_cochlea_may_fall(tmp_path: Path) -> None:
    falling = ([0.5, 0.25], [1, 2])
    write_shd(tmp_path / "s.h5", [falling], [0], [0])
    write_ntidigits(tmp_path / "n.h5", {"k": falling}, {})
    assert read_recording(tmp_path / "s.h5", "00000-0-0", "shd").t.tolist() == [0.5, 0.25]
    assert read_recording(tmp_path / "n.h5", "train/k", "n-tidigits").t.tolist() == [0.5, 0.25]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_recordings_are_read_straight_from_a_zip(tmp_path: Path, method: int) -> None:
    file = tmp_path / "Test.zip"
    events = {f"Test/{i}/0000{i}.bin": [(i, 33, 1, 0), (33, i, 0, 7)] for i in (2, 1)}
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.mkdir("Test")
        archive.writestr("__MACOSX/Test/2/00002.bin", "attributes")
        archive.writestr("Test/2/.DS_Store", "attributes")
        for name, written in events.items():
            archive.writestr(name, nmnist_bytes(written))
    assert list_recordings(file, "n-mnist") == list(events)
    for name, written in events.items():
        assert rows(read_recording(file, name, "n-mnist")) == written
    assert [path.name for path in tmp_path.iterdir()] == ["Test.zip"]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_container_that_was_replaced_is_read_again(tmp_path: Path, in_place: bool) -> None:
    new = tmp_path / "new"
    for i in (1, 2):
        for name, member, form in (
            ("a.zip", "a.bin", "n-mnist"),
            ("a.h5", "train/k", "n-tidigits"),
        ):
            if form == "n-mnist":
                with zipfile.ZipFile(new, "w") as archive:
                    archive.writestr(member, nmnist_bytes([(i, i, 1, 0)]))
            else:
                write_ntidigits(new, {"k": ([0.5] * i, [i] * i)}, {})
            if in_place:
                (tmp_path / name).write_bytes(new.read_bytes())
            else:
                new.replace(tmp_path / name)
            os.utime(tmp_path / name, (i, i))
            assert set(read_recording(tmp_path / name, member, form).x) == {i}


def test_more_containers_than_stay_open_are_read_in_turn(tmp_path: Path) -> None:
    for i in range(20):
        with zipfile.ZipFile(tmp_path / f"{i}.zip", "w") as archive:
            archive.writestr("a.bin", nmnist_bytes([(i, 0, 1, 0)]))
        write_ntidigits(tmp_path / f"{i}.h5", {"k": ([0.5], [i])}, {})
    for _, i in itertools.product(range(2), range(20)):
        assert read_recording(tmp_path / f"{i}.zip", "a.bin", "n-mnist").x == [i]
        assert read_recording(tmp_path / f"{i}.h5", "train/k", "n-tidigits").x == [i]


def test_the_sandbox_reads_what_this_process_has_open(tmp_path: Path) -> None:
    write_shd(tmp_path / "s.h5", [([0.5], [1])], [4], [3])
    (name,) = list_recordings(tmp_path / "s.h5", "shd")
    assert sandbox.call(read_recording, tmp_path / "s.h5", name, "shd").x == [1]
    with pytest.raises(MediaError, match="is not in the file, which has 00000-3-4"):
        sandbox.call(read_recording, tmp_path / "s.h5", "00000-3-5", "shd")
