import io
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from avsnn.pipeline.formats.event_npz import event_npz, read_event_npz
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.events import Events, Sensor
from tests.pipeline.formats.event_samples import (
    TIME_TYPES,
    drawn_events,
    make_events,
    read_aedat,
)

EVENTS = make_events([0, 7, 9], [3, 127, 0], [127, 0, 5], [1, 0, 1], (2, 128, 128))


def require_same(read: Events, events: Events) -> None:
    assert read.sensor == events.sensor
    assert read.t.dtype == events.t.dtype.newbyteorder("<")
    assert read.t.tobytes() == events.t.astype(read.t.dtype).tobytes()
    for name in "xyp":
        np.testing.assert_array_equal(getattr(read, name), getattr(events, name))


@given(st.booleans().flatmap(lambda cochlea: drawn_events(cochlea=cochlea)))
def test_events_come_back_as_they_were(events: Events) -> None:
    data = event_npz(events)
    read = read_event_npz(data)
    require_same(read, events)
    assert event_npz(read) == data


@pytest.mark.parametrize("dtype", TIME_TYPES)
def test_times_keep_every_bit(dtype: str) -> None:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        limits = np.finfo(kind)
        times = [limits.smallest_subnormal, -limits.max / 2, limits.max / 2, -0.0, 1 / 3]
    else:
        times = [np.iinfo(kind).min, np.iinfo(kind).max, 0, 1, 2]
    zeros = [0] * 5
    events = make_events(times, zeros, zeros, zeros, (1, 1, 700), dtype)
    require_same(read_event_npz(event_npz(events)), events)


def test_the_same_events_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = event_npz(EVENTS)
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    monkeypatch.setattr("sys.platform", "win32")
    assert event_npz(EVENTS) == data
    monkeypatch.undo()
    x, y, p = (addresses.astype(">u8") for addresses in EVENTS[1:4])
    assert event_npz(Events(EVENTS.t.astype(">u4"), x, y, p, EVENTS.sensor)) == data


def test_numpy_and_webdataset_read_the_file() -> None:
    data = event_npz(EVENTS)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        assert arrays.files == ["t", "x", "y", "p", "sensor"]
        assert arrays["t"].tolist() == [0, 7, 9]
        assert arrays["x"].tolist() == [3, 127, 0]
        assert arrays["y"].tolist() == [127, 0, 5]
        assert arrays["p"].tolist() == [1, 0, 1]
        assert arrays["sensor"].tolist() == [2, 128, 128]
    decode = webdataset.autodecode.Decoder([webdataset.autodecode.basichandlers])
    decoded = decode({"__key__": "clip", "visual.npz": data})["visual.npz"]
    assert decoded["t"].tolist() == [0, 7, 9]


@pytest.mark.parametrize(
    ("sensor", "types"),
    [((2, 34, 34), "u1 u1"), ((2, 256, 257), "<u2 u1"), ((1, 1, 65537), "<u4 u1")],
)
def test_addresses_take_as_few_bytes_as_the_sensor_needs(
    sensor: tuple[int, int, int], types: str
) -> None:
    read = read_event_npz(event_npz(make_events([0], [0], [0], [0], sensor)))
    assert [read.x.dtype, read.y.dtype] == types.split()


def test_a_real_recording_comes_back_whole(shared_data: Path) -> None:
    for path in sorted((shared_data / "mnistdvs").glob("*.aedat")):
        events = read_aedat(path)
        data = event_npz(events)
        require_same(read_event_npz(data), events)
        # 8 bytes for each event in AEDAT, and 7 in the .npz file.
        assert len(data) < path.stat().st_size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": np.zeros(2, "u4")}, r"different lengths: 2 of t, 3 of x, 3 of y, 3 of p"),
        ({"t": np.zeros(3, "c16")}, "times of the type complex128"),
        ({"t": np.zeros(3, "M8[us]")}, r"times of the type datetime64\[us\]"),
        ({"t": np.array([0, np.nan, 1])}, "times that no clock gives: not finite"),
        ({"t": np.array([0, np.inf, 1], "f2")}, "times that no clock gives: not finite"),
        ({"t": np.array([-1e308, 0, 1e308])}, "too far apart"),
        ({"x": np.zeros(3, "i8")}, "x of the type int64"),
        (
            {"x": np.array([0, 128, 3], "u2")},
            "an event at x = 128, and x of the sensor ends at 127",
        ),
        ({"y": np.array([0, 200, 3], "u1")}, "an event at y = 200"),
        ({"p": np.array([0, 1, 2], "u1")}, "an event at p = 2, and p of the sensor ends at 1"),
        ({"sensor": Sensor(3, 128, 128)}, "a sensor of 3 polarities"),
        ({"sensor": Sensor(2, 0, 128)}, "0 rows"),
        ({"sensor": Sensor(2, -128, -128)}, "-128 rows"),
        ({"sensor": Sensor(2, 2**31, 2**31)}, "which no sensor has"),
    ],
)
def test_inconsistent_events_are_neither_written_nor_read(
    change: dict[str, object], message: str
) -> None:
    events = EVENTS._replace(**change)
    with pytest.raises(MediaError, match=message):
        event_npz(events)
    arrays = events._asdict() | {"sensor": np.array(events.sensor, "i8")}
    file = io.BytesIO()
    np.savez(file, **arrays)
    # The reader refuses some types by their header, before the content is compared.
    with pytest.raises(MediaError, match=f"{message}|not one row of plain numbers"):
        read_event_npz(file.getvalue())


def npz_of(**changes: bytes) -> bytes:
    """Return the .npz file of `EVENTS` with other bytes for the named arrays."""
    with zipfile.ZipFile(io.BytesIO(event_npz(EVENTS))) as archive:
        members = {name: archive.read(f"{name}.npy") for name in Events._fields} | changes
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(descr: str, shape: str, content: bytes = bytes(12)) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def npy_of(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def test_the_hand_made_file_is_read_when_nothing_is_wrong() -> None:
    require_same(read_event_npz(npz_of(t=npy("'<u4'", "(3,)", EVENTS.t.tobytes()))), EVENTS)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy("'<u4'", "(4,)"), "declares 16 bytes of t, and holds 12"),
        (npy("'<u4'", "(3,)", bytes(13)), "declares 12 bytes of t, and holds 13"),
        (npy("'<u4'", f"({10**17},)"), "declares 400,000,000,000,000,000 bytes of t"),
        (npy("'<u4'", f"({10**30},)"), "not one row"),
        (npy("'<u4'", "(-3,)"), "not one row"),
        (npy("'<u4'", "(3, 1)"), "not one row"),
        (npy("'<u4'", "()", bytes(4)), "not one row"),
        (npy("'>u4'", "(3,)"), "not one row"),
        (npy("'|f1'", "(3,)", bytes(3)), r"of the type \|f1"),
        (npy("'|O'", "(3,)"), "not one row"),
        (npy("[('a', '<u4')]", "(3,)"), "not one row"),
        (npy("__import__('os').abort()", "(3,)"), "not one row"),
        (npy("'<u4'", "(3,)").replace(b"\x01\x00", b"\x09\x00", 1), "not one row"),
        (npy_of(np.array([1, "a", None], object), allow_pickle=True), "not one row"),
        (npy_of(np.array([True, False, True])), "not one row"),
        (b"\x93NUMPY", "not one row"),
        (b"", "not one row"),
        (b"(" * 100_000, "not one row"),
    ],
    ids=lambda value: repr(value[10:50]) if isinstance(value, bytes) else None,
)
def test_a_false_array_is_refused_by_its_header(member: bytes, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        read_event_npz(npz_of(t=member))


@pytest.mark.parametrize(
    ("sensor", "message"),
    [
        (np.array([2, 128], "i8"), "three integers"),
        (np.array([2, 128, 128, 1], "i8"), "three integers"),
        (np.array([2, 128, 128], "f8"), "three integers"),
        (np.array([2, 2**62, 2**62], "i8"), "which no sensor has"),
    ],
)
def test_a_false_sensor_is_refused(sensor: np.ndarray, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        read_event_npz(npz_of(sensor=npy_of(sensor)))


def compressed() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **EVENTS._asdict())
    return file.getvalue()


def with_other_arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, frames=np.zeros(3))
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def with_two_of_one_array() -> bytes:
    file = io.BytesIO(event_npz(EVENTS))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("t.npy", b"")
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", "is no whole .npz file"),
        (lambda: b"\x93NUMPY\x01\x00", "is no whole .npz file"),
        (lambda: bytes(1000), "is no whole .npz file"),
        (compressed, "has compressed arrays"),
        (with_other_arrays, "has the arrays 'frames', and needs t, x, y, p, sensor"),
        (with_two_of_one_array, "has the arrays 't, x, y, p, sensor, t'"),
    ],
)
def test_a_file_that_is_no_event_file_is_refused(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(MediaError, match=message):
        read_event_npz(make())


def test_every_cut_and_a_flipped_bit_in_every_byte_of_an_array_are_noticed() -> None:
    data = event_npz(EVENTS)
    for length in range(len(data)):
        with pytest.raises(MediaError):
            read_event_npz(data[:length])
    start = data.index(b"\x93NUMPY")
    end = data.index(b"PK\x03\x04", start)
    for place in range(start, end):
        with pytest.raises(MediaError, match="CRC-32"):
            read_event_npz(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_damaged_bytes_give_the_same_events_or_a_media_error(seed: int) -> None:
    data, draw = event_npz(EVENTS), random.Random(seed)
    for _ in range(20):
        damaged = bytearray(data)
        for _ in range(draw.choice([1, 2, 8])):
            # Half of the damage is in the directory at the end, which no checksum covers.
            start = draw.choice([0, data.index(b"PK\x01\x02")])
            damaged[draw.randrange(start, len(data))] = draw.choice(
                [0, 1, 255, draw.randrange(256)]
            )
        try:
            read = read_event_npz(bytes(damaged))
        except MediaError:
            continue
        require_same(read, EVENTS)
