"""Every damage of a recording of an event sensor is one phrase, and takes no memory."""

import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from avsnn.pipeline.media import event_files, sandbox
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.event_files import list_recordings, read_recording
from tests.conftest import PROJECT
from tests.pipeline.media.event_encoders import (
    AEDAT_HEADER,
    aedat_bytes,
    nmnist_bytes,
    write_ntidigits,
    write_shd,
)

EVENTS = [(1, 2, 1, 10), (3, 4, 0, 20), (5, 6, 1, 30)]
AEDAT = aedat_bytes(EVENTS)
MARK = b"#!AER-DAT2.0\r\n"


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (AEDAT[1:], "does not begin with the line #!AER-DAT2.0"),
        (b"#!AER-DAT3.1\r\n" + AEDAT, "does not begin with the line #!AER-DAT2.0"),
        (b"#!AER-DAT2.01\r\n" + AEDAT, "does not begin with the line #!AER-DAT2.0"),
        (b"#!AER-DAT2.0", "does not begin with the line #!AER-DAT2.0"),
        (MARK + b"# and so on", "has a header without an end"),
        (AEDAT_HEADER, "holds no events"),
        (AEDAT[:-1], "has 23 bytes of events, no multiple of 8: it is cut"),
        (MARK + struct.pack(">4I", 0, 1, 1 << 15, 2), "has the address 0x8000 at event 1"),
        (MARK + struct.pack(">2I", 0x80000000, 1), "has the address 0x80000000 at event 0"),
        (aedat_bytes(EVENTS[::-1]), "has times that fall, from 30 to 20 us at event 1"),
    ],
)
def test_damage_of_aedat_has_one_phrase(tmp_path: Path, data: bytes, phrase: str) -> None:
    (tmp_path / "a.aedat").write_bytes(data)
    with pytest.raises(MediaError, match=phrase):
        read_recording(tmp_path / "a.aedat", "", "aedat2")


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        (b"", "is empty"),
        (nmnist_bytes(EVENTS)[:-2], "has 13 bytes of events, no multiple of 5: it is cut"),
        (nmnist_bytes([(1, 1, 1, 5), (0, 240, 0, 5)]), "mark of an overflow .* at event 1"),
        (nmnist_bytes([(34, 0, 1, 5)]), r"has the pixel \(34, 0\) at event 0, outside of 34 x 34"),
        (nmnist_bytes([(1, 1, 1, 5), (0, 34, 1, 5)]), r"has the pixel \(0, 34\) at event 1"),
        (nmnist_bytes(EVENTS[::-1]), "has times that fall, from 30 to 20 us at event 1"),
    ],
)
def test_damage_of_nmnist_has_one_phrase(tmp_path: Path, data: bytes, phrase: str) -> None:
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(MediaError, match=phrase):
        read_recording(tmp_path / "a.bin", "", "n-mnist")


def test_a_recording_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_files, "MAX_RECORDING_BYTES", 10)
    with pytest.raises(MediaError, match="has 15 bytes, and the limit is 10"):
        read_in_zip(tmp_path, nmnist_bytes(EVENTS))
    (tmp_path / "a.bin").write_bytes(nmnist_bytes(EVENTS))
    with pytest.raises(MediaError, match="has 15 bytes, and the limit is 10"):
        read_recording(tmp_path / "a.bin", "", "n-mnist")


# --- zip -----------------------------------------------------------------------------------------

CENTRAL = b"PK\1\2"  # the start of an entry in the directory at the end of a zip


def make_zip(
    tmp_path: Path, data: bytes, name: str = "a.bin", method: int = zipfile.ZIP_DEFLATED
) -> Path:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, data)
    return file


def read_in_zip(tmp_path: Path, data: bytes, **kwargs: Any) -> Any:
    return read_recording(
        make_zip(tmp_path, data, **kwargs), kwargs.get("name", "a.bin"), "n-mnist"
    )


def change_entry(file: Path, offset: int, form: str, value: int) -> None:
    data = bytearray(file.read_bytes())
    struct.pack_into(form, data, data.rindex(CENTRAL) + offset, value)
    file.write_bytes(data)


def test_a_file_that_is_no_zip_or_lacks_the_recording_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(b"no zip")
    with pytest.raises(MediaError, match="is no zip, or is damaged"):
        list_recordings(file, "n-mnist")
    make_zip(tmp_path, nmnist_bytes(EVENTS))
    with pytest.raises(MediaError, match=r"is not in a\.zip"):
        read_recording(file, "b.bin", "n-mnist")
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(MediaError, match="is no zip, or is damaged"):
        list_recordings(file, "n-mnist")


@pytest.mark.parametrize("name", ["../a.bin", "/a.bin", "a/./b.bin", "C:/a.bin", "a//b.bin"])
def test_a_name_that_leads_out_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match="has a name that is no plain path"):
        read_in_zip(tmp_path, nmnist_bytes(EVENTS), name=name)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_without_a_limit_are_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(MediaError, match=f"is compressed with method {method}"):
        read_in_zip(tmp_path, nmnist_bytes(EVENTS), method=method)


@pytest.mark.parametrize(
    ("offset", "form", "value", "phrase"),
    [
        (8, "<H", 1, "is encrypted"),
        (10, "<H", 99, "is compressed with method 99"),
        (16, "<I", 0, "Bad CRC-32"),
        (24, "<I", 10, "Bad CRC-32"),
        (24, "<I", 2**31, "has 2,147,483,648 bytes, and the limit is 268,435,456"),
        (24, "<I", 99, r"has 15 bytes in a\.zip, not 99"),
        (42, "<I", 7, r"cannot be read from a\.zip: Bad magic number"),
    ],
)
def test_a_false_entry_of_a_zip_is_one_phrase(
    tmp_path: Path, offset: int, form: str, value: int, phrase: str
) -> None:
    file = make_zip(tmp_path, nmnist_bytes(EVENTS))
    change_entry(file, offset, form, value)
    with pytest.raises(MediaError, match=phrase):
        read_recording(file, "a.bin", "n-mnist")


def test_a_name_that_is_no_text_is_damage(tmp_path: Path) -> None:
    file = make_zip(tmp_path, b"", name="é.bin")
    file.write_bytes(file.read_bytes().replace("é".encode(), b"\xff\xff"))
    with pytest.raises(MediaError, match="is no zip, or is damaged"):
        list_recordings(file, "n-mnist")


def test_a_file_with_a_false_size_does_not_fill_the_memory(tmp_path: Path) -> None:
    bomb = make_zip(tmp_path, bytes(2**29))
    change_entry(bomb, 24, "<I", 1000)
    # The peak of a process does not fall, so another process reads.
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from avsnn.pipeline.media.event_files import read_recording as read\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try: read(Path(sys.argv[1]), 'a.bin', 'n-mnist')\n"
        "except Exception as error: print(error, (peak() - before) // 1024, sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(bomb)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    phrase, mebibytes = done.stdout.split("|")
    assert "Bad CRC-32" in phrase
    assert int(mebibytes) < 64


# --- HDF5 ----------------------------------------------------------------------------------------

KEY = "man-ae-a-3"
MEMBERS = {"n-tidigits": f"train/{KEY}", "shd": "00000-3-4"}


def make(tmp_path: Path, form: str) -> Path:
    file = tmp_path / f"{form}.h5"
    if form == "shd":
        write_shd(file, [([0.25, 0.5], [1, 2]), ([0.5], [3])], [4, 5], [3, 2])
    else:
        write_ntidigits(file, {KEY: ([0.25, 0.5], [1, 2])}, {"woman-be-b-z": ([0.5], [1])})
    return file


def put(path: str, values: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[path]
        if values is not None:
            file[path] = values

    return change


def put_utterance(path: str, values: list[float], dtype: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        count = len(file[path])
        del file[path]
        data = file.create_dataset(path, (count,), h5py.vlen_dtype(np.dtype(dtype)))
        for i in range(count):
            data[i] = np.array(values, dtype)

    return change


def make_foreign_filter(file: h5py.File) -> None:
    del file[TIMES]
    stored = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    stored.set_chunk((2,))
    stored.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    space, name = h5py.h5s.create_simple((2,)), TIMES.encode()
    h5py.h5d.create(file.id, name, h5py.h5t.IEEE_F64LE, space, stored)


def make_large_chunk(file: h5py.File) -> None:
    del file[TIMES]
    chunk = {"maxshape": (None,), "chunks": (2**26,), "compression": "gzip"}
    file.create_dataset(TIMES, (2,), "f8", **chunk)


def make_virtual(file: h5py.File) -> None:
    del file[TIMES]
    layout = h5py.VirtualLayout((2,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "times", (2,))
    file.create_virtual_dataset(TIMES, layout)


def make_external(file: h5py.File) -> None:
    del file[TIMES]
    file.create_dataset(TIMES, (2,), "f8", external=[("/etc/passwd", 0, 16)])


CHANNELS, TIMES = f"train_addresses/{KEY}", f"train_timestamps/{KEY}"


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (put(TIMES, None), f"has no {TIMES}"),
        (put("train_addresses", None), f"has no {CHANNELS}"),
        (put("train_addresses", [1, 2]), f"has no {CHANNELS}"),
        (put(TIMES, [0.25]), "has 1 times, but 2 channels"),
        (put(TIMES, np.zeros((2, 1))), "has 2 dimensions in"),
        (put(TIMES, 0.25), "has 0 dimensions in"),
        (put(TIMES, [b"a", b"b"]), "has object as times"),
        (put(TIMES, np.array([b"a", b"b"])), r"has \|S1 as times"),
        (put(TIMES, [0.25, np.nan]), "has a time that is negative or no finite number"),
        (put(TIMES, [0.25, np.inf]), "has a time that is negative or no finite number"),
        (put(TIMES, [-0.25, 0.25]), "has a time that is negative or no finite number"),
        (put(TIMES, np.array([0.25, 0.5], np.longdouble)), "has float128 as times"),
        (put(TIMES, np.array([True, False])), "has bool as times"),
        (put(TIMES, np.array([1, 2], "c8")), "has complex64 as times"),
        (put(CHANNELS, [1, 64]), "a whole number from 0 to 63"),
        (put(CHANNELS, [-1, 3]), "a whole number from 0 to 63"),
        (put(CHANNELS, [0.5, 3]), "a whole number from 0 to 63"),
        (put(CHANNELS, [np.nan, 3]), "a whole number from 0 to 63"),
        (put(TIMES, h5py.SoftLink("/train_timestamps")), "has a link in place of"),
        (put(TIMES, h5py.ExternalLink("other.h5", "/a")), "has a link in place of"),
        (put("train_timestamps", h5py.ExternalLink("o.h5", "/")), "has a link in place of"),
        (put(TIMES, h5py.Empty("f8")), "has 0 dimensions in"),
        (make_virtual, "in another file"),
        (make_external, "in another file"),
        (make_foreign_filter, "needs the filter 32001"),
        (make_large_chunk, "has 536,870,912 bytes in a chunk of"),
    ],
)
def test_damage_of_ntidigits_has_one_phrase(
    tmp_path: Path, change: Callable[[h5py.File], None], phrase: str
) -> None:
    file = make(tmp_path, "n-tidigits")
    with h5py.File(file, "r+") as opened:
        change(opened)
    with pytest.raises(MediaError, match=phrase):
        read_recording(file, MEMBERS["n-tidigits"], "n-tidigits")


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (put("spikes", None), "has no spikes/times"),
        (put("spikes/units", None), "has no spikes/units"),
        (put("spikes/times", np.zeros(2)), "has float64 in spikes/times, not rows of numbers"),
        (put("spikes/times", np.zeros(2, "c8")), "has complex64 in spikes/times, not rows"),
        (put_utterance("spikes/times", [], "f2"), "has 0 times, but 2 channels"),
        (put_utterance("spikes/times", [0, 1, 2], "f2"), "has 3 times, but 2 channels"),
        (put_utterance("spikes/times", [0, np.inf], "f2"), "has a time that is negative or no"),
        (put_utterance("spikes/units", [0, 700], "i8"), "a whole number from 0 to 699"),
        (put_utterance("spikes/units", [0, -1], "i8"), "a whole number from 0 to 699"),
        (put("spikes/units", [b"ab", b"cd"]), "has object in spikes/units, not rows of numbers"),
        (put_utterance("spikes/units", [], "c8"), "in spikes/units, not rows of numbers"),
        (put("labels", [7, 5]), "is not in the file, which has 00000-3-7 in this place"),
    ],
)
def test_damage_of_shd_has_one_phrase(
    tmp_path: Path, change: Callable[[h5py.File], None], phrase: str
) -> None:
    file = make(tmp_path, "shd")
    with h5py.File(file, "r+") as opened:
        change(opened)
    with pytest.raises(MediaError, match=phrase):
        read_recording(file, MEMBERS["shd"], "shd")


@pytest.mark.parametrize(
    ("form", "change", "phrase"),
    [
        ("shd", put("labels", [4]), "has 2 utterances, but 1 entries in labels"),
        ("shd", put("labels", [4.0, 5.0]), "has no whole numbers in labels"),
        ("shd", put("extra", None), "has no extra/speaker"),
        ("shd", put("extra/speaker", [1, 2, 3]), "but 3 entries in extra/speaker"),
        ("n-tidigits", put("test_labels", None), "has no test_labels"),
        ("n-tidigits", put("train_labels", [b"a/b"]), "has the key b'a/b' in train_labels"),
        ("n-tidigits", put("train_labels", [b""]), "has the key b'' in train_labels"),
        ("n-tidigits", put("train_labels", [b"a\nb"]), "which is no name"),
        ("n-tidigits", put("train_labels", [1, 2]), "has the key 1 in train_labels"),
        ("n-tidigits", put("train_labels", np.array([b"\xff"])), "which is no name"),
        ("n-tidigits", put("train_labels", [b".."]), "which is no name"),
    ],
)
def test_damage_of_a_list_has_one_phrase(
    tmp_path: Path, form: Any, change: Callable[[h5py.File], None], phrase: str
) -> None:
    file = make(tmp_path, form)
    with h5py.File(file, "r+") as opened:
        change(opened)
    with pytest.raises(MediaError, match=phrase):
        list_recordings(file, form)


@pytest.mark.parametrize("form", ["n-tidigits", "shd"])
@pytest.mark.parametrize(
    "member", ["", "x", "train/", "train/no", "../train", "00009-1-1", "²-1-1"]
)
def test_a_recording_that_is_not_there_is_one_phrase(
    tmp_path: Path, form: Any, member: str
) -> None:
    with pytest.raises(MediaError, match=r"has no|is no name|is not"):
        read_recording(make(tmp_path, form), member, form)


@pytest.mark.parametrize("form", ["n-tidigits", "shd"])
def test_utterances_without_spikes_hold_no_events(tmp_path: Path, form: Any) -> None:
    file = tmp_path / "a.h5"
    if form == "shd":
        write_shd(file, [([], [])], [4], [3])
    else:
        write_ntidigits(file, {KEY: ([], [])}, {})
    with pytest.raises(MediaError, match="holds no events"):
        read_recording(file, MEMBERS[form], form)


@pytest.mark.parametrize("form", ["n-tidigits", "shd"])
def test_a_file_that_is_no_whole_hdf5_is_one_phrase(tmp_path: Path, form: Any) -> None:
    file = make(tmp_path, form)
    data = file.read_bytes()
    for damaged in (b"no HDF5 at all", data[: len(data) // 2], data[:-1], data[8:]):
        file.write_bytes(damaged)
        with pytest.raises(MediaError, match="cannot be read as HDF5"):
            list_recordings(file, form)


def test_a_file_that_is_gone_is_no_damage(tmp_path: Path) -> None:
    for form in ("aedat2", "n-mnist", "n-tidigits", "shd"):
        with pytest.raises(FileNotFoundError):
            read_recording(tmp_path / "a.zip", "a", form)  # type: ignore[arg-type]


# --- any damage ----------------------------------------------------------------------------------


def damage(data: bytes, rng: random.Random) -> bytes:
    """The data with some bits flipped, or cut, or with some bytes twice."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.2:
        del changed[rng.randrange(len(changed)) :]
    if rng.random() < 0.1:
        at = rng.randrange(len(changed) + 1)
        changed[at:at] = changed[at : at + 7]
    return bytes(changed)


def read_all(file: Path, form: Any) -> None:
    """Read all recordings of a file, each of which has consistent events or one phrase."""
    try:
        names = list_recordings(file, form)
    except MediaError:
        return
    for name in names:
        try:
            events = read_recording(file, name, form)
        except MediaError:
            continue
        assert {len(a) for a in events[:4]} == {len(events.t)} != {0}
        for addresses, size in zip((events.p, events.y, events.x), events.sensor, strict=True):
            assert addresses.max() < size
        assert np.isfinite(events.t).all()


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.aedat", "aedat2"), ("a.bin", "n-mnist"), ("a.zip", "n-mnist"), ("b.zip", "n-mnist")],
)
def test_random_damage_gives_events_or_one_phrase(tmp_path: Path, name: str, form: str) -> None:
    rng = random.Random(1)
    events = [(i, i, i % 2, 100 * i) for i in range(30)]
    data = aedat_bytes(events) if form == "aedat2" else nmnist_bytes(events)
    if name.endswith(".zip"):
        method = zipfile.ZIP_STORED if name == "a.zip" else zipfile.ZIP_DEFLATED
        data = make_zip(tmp_path, data, method=method).read_bytes()
    for i in range(1000):
        # A name of its own, because two damages of one size could have the same time of change.
        file = tmp_path / f"{i}-{name}"
        file.write_bytes(damage(data, rng))
        read_all(file, form)
        file.unlink()


@pytest.mark.parametrize("form", ["n-tidigits", "shd"])
def test_random_damage_of_hdf5_gives_events_or_one_phrase(tmp_path: Path, form: str) -> None:
    rng = random.Random(1)
    data = make(tmp_path, form).read_bytes()
    for i in range(300):
        file = tmp_path / f"{i}.h5"
        file.write_bytes(damage(data, rng))
        # Damage may crash HDF5 itself; the sandbox then gives a phrase, too.
        with suppress(sandbox.DecoderDiedError):
            sandbox.call(read_all, file, form)
        file.unlink()


def test_a_key_that_is_listed_twice_is_one_utterance(tmp_path: Path) -> None:
    file = make(tmp_path, "n-tidigits")
    with h5py.File(file, "r+") as opened:
        put("train_labels", [KEY.encode(), KEY.encode()])(opened)
    assert list_recordings(file, "n-tidigits") == [f"train/{KEY}", "test/woman-be-b-z"]


@pytest.mark.parametrize("key", [f"{KEY}\0", ".", "a//b"])
def test_hdf5_does_not_see_another_key(tmp_path: Path, key: str) -> None:
    file = make(tmp_path, "n-tidigits")
    with pytest.raises(MediaError, match="has no train_addresses/"):
        read_recording(file, f"train/{key}", "n-tidigits")


def test_a_number_with_too_many_digits_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is not among the 2 utterances"):
        read_recording(make(tmp_path, "shd"), "9" * 5000, "shd")


def test_damage_that_hangs_hdf5_ends_with_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make(tmp_path, "shd")
    data = bytearray(file.read_bytes())
    # The rows lie in a heap, which ends in free space: object 0. HDF5 2.0 steps from object to
    # object by their sizes, and never reaches the end where the size of the free space is false.
    heap = data.index(b"GCOL")
    end = heap + struct.unpack_from("<Q", data, heap + 8)[0]
    place = heap + 16
    while struct.unpack_from("<H", data, place)[0]:
        place += 16 + -(-struct.unpack_from("<Q", data, place + 8)[0] // 8) * 8
    assert struct.unpack_from("<Q", data, place + 8)[0] == end - place
    data[place + 8] = 0x80
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(data)
    # The first call starts the sandbox.
    sandbox.call(read_recording, file, MEMBERS["shd"], "shd")
    monkeypatch.setattr(sandbox, "DEADLINE_S", 1.0)
    with pytest.raises(MediaError, match=r"did not finish decoding|cannot be read as HDF5"):
        sandbox.call(read_recording, damaged, MEMBERS["shd"], "shd")
