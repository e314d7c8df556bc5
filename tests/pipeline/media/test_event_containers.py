"""Recordings in zips and in HDF5 files: what they give, and what damaged or hostile files give."""

import random
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.datasets_manifest.recordings import EventFormat
from avsnn.pipeline.media import sandbox
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.event_files import list_recordings, read_recording
from tests.event_files import Utterance, aedat_bytes, write_ntidigits, write_shd, write_zip

RECORDING = aedat_bytes([1, 2], [3, 4], [5, 6], [0, 1])

# A key, and the array of its times.
KEY = "man-ae-a-1"
TIMES = f"train_timestamps/{KEY}"

# Name of the first utterance of `make_shd`.
FIRST = "00000-4-13"

Build = Callable[[h5py.File], Any]


def make_zip(path: Path) -> Path:
    write_zip(path, {"a/x.aedat": RECORDING, "b.aedat": RECORDING})
    return path


def make_ntidigits(path: Path) -> Path:
    write_ntidigits(
        path, {"train": {KEY: ([0.1, 0.2], [1, 63])}, "test": {"woman-b-b-z": ([0.5], [0])}}
    )
    return path


def make_shd(path: Path) -> Path:
    write_shd(path, [Utterance([0.2, 0.1], [0, 699], 13, 4), Utterance([0.5], [7], 0, 11)])
    return path


MAKERS: dict[EventFormat, tuple[Callable[[Path], Path], str]] = {
    "aedat2": (make_zip, "a/x.aedat"),
    "n-tidigits": (make_ntidigits, f"train/{KEY}"),
    "shd": (make_shd, FIRST),
}


def replaced(array: str, **kwargs: Any) -> Build:
    def build(file: h5py.File) -> None:
        del file[array]
        file.create_dataset(array, **kwargs)

    return build


def linked(array: str, link: Any) -> Build:
    def build(file: h5py.File) -> None:
        del file[array]
        file[array] = link

    return build


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (2,))
    del file[TIMES]
    file.create_virtual_dataset(TIMES, layout)


def test_a_zip_gives_its_files_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    hidden = {"__MACOSX/._z": b"x", "d/": b"", "d/.DS_Store": b"x"}
    write_zip(path, {"z.aedat": RECORDING, "a.aedat": RECORDING, **hidden})
    assert list_recordings(path, "aedat2") == ["z.aedat", "a.aedat"]
    assert read_recording(path, "a.aedat", "aedat2").t.tolist() == [1, 2]


def test_ntidigits_gives_its_utterances(tmp_path: Path) -> None:
    path = make_ntidigits(tmp_path / "x.hdf5")
    assert list_recordings(path, "n-tidigits") == [f"train/{KEY}", "test/woman-b-b-z"]
    events = read_recording(path, f"train/{KEY}", "n-tidigits")
    assert (events.t.tolist(), events.x.tolist()) == ([0.1, 0.2], [1, 63])
    assert events.sensor == (1, 1, 64)


def test_shd_gives_its_utterances_in_any_order_of_times(tmp_path: Path) -> None:
    path = make_shd(tmp_path / "x.h5")
    assert list_recordings(path, "shd") == [FIRST, "00001-11-0"]
    events = read_recording(path, FIRST, "shd")
    assert events.t.dtype == np.float16
    assert events.t.tolist() == np.array([0.2, 0.1], np.float16).tolist()
    assert (events.x.tolist(), events.sensor) == ([0, 699], (1, 1, 700))


@given(
    st.lists(
        st.tuples(st.floats(0, 60_000, width=16), st.integers(0, 699)), min_size=1, max_size=30
    )
)
def test_spikes_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, spikes: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("spikes")
    times, channels = zip(*spikes, strict=True)
    write_shd(folder / "x.h5", [Utterance(times, channels, 0, 0)])
    events = read_recording(folder / "x.h5", "00000-0-0", "shd")
    assert (tuple(events.t.tolist()), tuple(events.x.tolist())) == (times, channels)
    rising, low = sorted(times), [channel % 64 for channel in channels]
    write_ntidigits(folder / "x.hdf5", {"test": {"a": (rising, low)}})
    events = read_recording(folder / "x.hdf5", "test/a", "n-tidigits")
    assert (events.t.tolist(), events.x.tolist()) == (rising, low)


@pytest.mark.parametrize(
    ("times", "channels", "words"),
    [
        ([0.2, 0.1], [1, 2], "has times that fall, from 0.2 to 0.1 s at event 1"),
        ([-0.1, 0.1], [1, 2], "has a time that is negative or no finite number"),
        ([0.1, np.nan], [1, 2], "has a time that is negative or no finite number"),
        ([0.1, np.inf], [1, 2], "has a time that is negative or no finite number"),
        ([0.1], [64], "has a channel that is not a whole number from 0 to 63"),
        ([0.1], [-1], "has a channel that is not a whole number from 0 to 63"),
        ([0.1], [1.5], "has a channel that is not a whole number from 0 to 63"),
        ([0.1], [np.nan], "has a channel that is not a whole number from 0 to 63"),
        ([], [], "holds no events"),
        ([0.1, 0.2], [1], "has 2 times, but 1 channels"),
    ],
)
def test_spikes_that_cannot_be(tmp_path: Path, times: Any, channels: Any, words: str) -> None:
    path = tmp_path / "x.hdf5"
    write_ntidigits(path, {"train": {"a": (times, channels)}})
    with pytest.raises(MediaError, match=words):
        read_recording(path, "train/a", "n-tidigits")


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (linked(TIMES, h5py.SoftLink("/train_addresses")), "has a link in place of"),
        (linked(TIMES, h5py.ExternalLink("y.hdf5", "/x")), "has a link in place of"),
        (linked("train_timestamps", h5py.ExternalLink("y.hdf5", "/x")), "has a link in place of"),
        (virtual, "in another file"),
        (replaced(TIMES, shape=(2,), dtype="f8", external=[("y", 0, 16)]), "in another file"),
        (replaced(TIMES, shape=(2**40,), chunks=(2**20,), dtype="f8"), "and the limit is"),
        (replaced(TIMES, shape=(2**20,), chunks=(9,), dtype="S9999"), "and the limit is"),
        (
            replaced(TIMES, shape=(2,), maxshape=(None,), chunks=(2**27,), dtype="f8"),
            "the limit is",
        ),
        (replaced(TIMES, data=np.zeros((2, 1))), "has 2 dimensions"),
        (replaced(TIMES, data=0.5), "has 0 dimensions"),
        (replaced(TIMES, data=h5py.Empty("f8")), "has 0 dimensions"),
        (replaced(TIMES, data=np.zeros(2, [("a", "f8")])), "as times and"),
        (replaced(TIMES, data=np.array(["a", "b"], object)), "as times and"),
        (replaced(TIMES, data=np.zeros(2, bool)), "has bool as times"),
        (replaced(TIMES, data=np.zeros(2, complex)), "has complex128 as times"),
        (replaced(TIMES, data=np.zeros(2, np.longdouble)), "has float128 as times"),
        (lambda file: file.pop(TIMES), f"has no {TIMES}"),
        (lambda file: file.pop("train_addresses"), "has no train_addresses"),
        (lambda file: (file.pop(TIMES), file.create_group(TIMES)), "has a group in place of"),
    ],
)
def test_an_hdf5_file_that_is_not_as_agreed(tmp_path: Path, build: Build, words: str) -> None:
    path = make_ntidigits(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        build(file)
    with pytest.raises(MediaError, match=words):
        read_recording(path, f"train/{KEY}", "n-tidigits")


@pytest.mark.parametrize(
    "labels",
    [
        np.array([b""], "S1"),
        np.array([b"a/b"], "S3"),
        np.array([b".."], "S3"),
        np.array([b"a\nb"], "S3"),
        np.array([b"\xff"], "S1"),
        np.arange(3),
    ],
)
def test_a_key_that_is_no_name(tmp_path: Path, labels: Any) -> None:
    path = make_ntidigits(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        replaced("train_labels", data=labels)(file)
    with pytest.raises(MediaError, match="which is no name"):
        list_recordings(path, "n-tidigits")


def test_a_key_that_is_listed_twice_is_one_utterance(tmp_path: Path) -> None:
    path = make_ntidigits(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        replaced("train_labels", data=np.array([KEY, KEY], "S32"))(file)
    assert list_recordings(path, "n-tidigits") == [f"train/{KEY}", "test/woman-b-b-z"]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda file: file.pop("spikes"), "has no spikes/times"),
        (lambda file: file.pop("extra/speaker"), "has no extra/speaker"),
        (replaced("labels", data=np.zeros(3, int)), "has 2 utterances, but 3 entries in labels"),
        (replaced("labels", data=np.zeros(2)), "has no whole numbers in labels"),
        (replaced("labels", shape=(2**20,), chunks=(9,), dtype="S9999"), "and the limit is"),
    ],
)
def test_an_shd_file_without_its_lists(tmp_path: Path, build: Build, words: str) -> None:
    path = make_shd(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        build(file)
    with pytest.raises(MediaError, match=words):
        list_recordings(path, "shd")


@pytest.mark.parametrize(
    "kind",
    [
        np.float16,
        h5py.string_dtype(),
        h5py.vlen_dtype([("a", "f4")]),
        h5py.vlen_dtype(np.complex64),
    ],
)
def test_shd_times_that_are_no_rows_of_numbers(tmp_path: Path, kind: Any) -> None:
    path = make_shd(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        replaced("spikes/times", shape=(2,), dtype=kind)(file)
    with pytest.raises(MediaError, match="has no rows of numbers in spikes/times"):
        read_recording(path, FIRST, "shd")


@pytest.mark.parametrize(
    "member", ["00002-4-13", "00000-4-12", "0-4-13", "00001-4-13", "-1-4-13", "²-4-13", "9" * 5000]
)
def test_an_utterance_that_shd_does_not_hold(tmp_path: Path, member: str) -> None:
    path = make_shd(tmp_path / "x.h5")
    with pytest.raises(MediaError, match="is not among the 2 utterances"):
        read_recording(path, member, "shd")


@pytest.mark.parametrize("member", ["train", "train/", f"train/{KEY}\0", "train/.", "all/x"])
def test_an_utterance_that_ntidigits_does_not_hold(tmp_path: Path, member: str) -> None:
    path = make_ntidigits(tmp_path / "x.hdf5")
    with pytest.raises(MediaError, match="has no "):
        read_recording(path, member, "n-tidigits")


def test_a_filter_that_is_not_installed(tmp_path: Path) -> None:
    path = make_ntidigits(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        replaced(TIMES, data=np.zeros(4), chunks=(4,), compression="gzip")(file)
    # The number of the filter in its message: 1 is gzip, 999 is nothing.
    data, start = path.read_bytes(), struct.pack("<HHHH", 1, 8, 1, 1)
    assert data.count(start) == 1
    path.write_bytes(data.replace(start, struct.pack("<H", 999) + start[2:]))
    with pytest.raises(MediaError, match="with filter 999, which avsnn does not read"):
        read_recording(path, f"train/{KEY}", "n-tidigits")


def test_damage_that_hangs_hdf5_ends_with_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_shd(tmp_path / "x.h5")
    data = bytearray(path.read_bytes())
    # The heap of the rows ends in free space, which is object 0. HDF5 2.0 steps from object to
    # object by their sizes, and never ends at a false size of the free space.
    heap = data.index(b"GCOL")
    size = struct.unpack_from("<Q", data, heap + 8)[0]
    place = heap + 16
    while struct.unpack_from("<H", data, place)[0]:
        place += 16 + -(-struct.unpack_from("<Q", data, place + 8)[0] // 8) * 8
    assert struct.unpack_from("<Q", data, place + 8)[0] == heap + size - place
    data[place + 8] = 0x80
    path.write_bytes(data)
    sandbox.call(list_recordings, make_shd(tmp_path / "whole.h5"), "shd")
    monkeypatch.setattr(sandbox, "DEADLINE_S", 1.0)
    with pytest.raises(MediaError):
        sandbox.call(read_recording, path, FIRST, "shd")


def test_zips_that_cannot_be_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip")
    whole = path.read_bytes()
    with pytest.raises(MediaError, match=r"is not in x.zip"):
        read_recording(path, "c.aedat", "aedat2")
    entry = whole.index(b"PK\1\2")

    def changed(offset: int, value: bytes, name: str) -> Path:
        place = tmp_path / f"{name}.zip"
        place.write_bytes(whole[: entry + offset] + value + whole[entry + offset + len(value) :])
        return place

    for offset, value, words in (
        (8, b"\1\0", "encrypted"),
        (10, b"\x63\0", "is packed by a method"),
        (10, struct.pack("<H", zipfile.ZIP_BZIP2), "is packed by a method"),
        (16, b"\0\0\0\0", "Bad CRC-32"),
        (24, b"\xff\xff\xff\x7f", "has 2,147,483,647 bytes, and the limit is 268,435,456"),
    ):
        with pytest.raises(MediaError, match=words):
            read_recording(changed(offset, value, words[:3] + str(value[0])), "a/x.aedat", "aedat2")


def test_a_member_with_a_false_size_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    write_zip(path, {"bomb": bytes(2**25)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, 10)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(MediaError, match="Bad CRC-32"):
        read_recording(path, "bomb", "aedat2")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


@pytest.mark.parametrize("form", MAKERS)
def test_files_of_another_kind(tmp_path: Path, form: EventFormat) -> None:
    for name, data in (("text", b"hello"), ("empty", b""), ("zeros", bytes(5000))):
        path = tmp_path / f"{name}.zip"
        path.write_bytes(data)
        with pytest.raises(MediaError, match=r"is no zip|cannot be read as HDF5|is empty"):
            list_recordings(path, form)


@pytest.mark.parametrize("form", MAKERS)
def test_damage_is_a_result_or_one_error(tmp_path: Path, form: EventFormat) -> None:
    make, member = MAKERS[form]
    whole = make(tmp_path / "whole").read_bytes()
    # Damage of the heap hangs HDF5, which another test shows.
    heap = whole.find(b"GCOL")
    safe = [i for i in range(len(whole)) if heap < 0 or not heap <= i < heap + 4096]
    written = [i for i in safe if whole[i]]
    random_numbers = random.Random(0)
    damaged = [whole[:length] for length in range(1, len(whole), len(whole) // 60 + 1)]
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(random_numbers.choice((1, 1, 2, 4))):
            places = random_numbers.choice((safe, written, written))
            data[random_numbers.choice(places)] = random_numbers.randrange(256)
        damaged.append(bytes(data))
    for number, data in enumerate(damaged):
        # Each file has another name, because the readers keep a file open while its size and its
        # time of change stay.
        path = tmp_path / f"{number}.zip"
        path.write_bytes(data)
        with warnings.catch_warnings(), suppress(MediaError):
            warnings.simplefilter("ignore")
            list_recordings(path, form)
        with suppress(MediaError):
            read_recording(path, member, form)
        path.unlink()
