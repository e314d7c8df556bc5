"""Archives that hold one file: what is unpacked, and what is refused in one phrase."""

import gzip
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.pipeline.transfer.errors import TransferError
from avsnn.pipeline.transfer.unpack import unpack_one_file

CONTENT = bytes(range(256)) * 40


def zip_of(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", "")
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        zip_of(**{"shd_train.h5": CONTENT}),
        zip_of(**{"../../leaves.h5": CONTENT, "__MACOSX/._leaves.h5": b"x"}),
        gzip.compress(CONTENT),
        gzip.compress(CONTENT[:99]) + gzip.compress(CONTENT[99:]),
    ],
    ids=["zip", "zip-with-a-hostile-name", "gzip", "gzip-of-two-members"],
)
def test_the_one_file_is_unpacked_whatever_its_name_is(archive: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "archive").write_bytes(archive)
    unpack_one_file(folder / "archive", folder / "file")
    assert (folder / "file").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["archive", "file", "inner"]


def encrypted() -> bytes:
    data = bytearray(zip_of(a=CONTENT))
    # Bit 0 of the flags, in the header of the file and in the directory.
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(mark) + offset] |= 1
    return bytes(data)


def changed(archive: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """Return an archive with other bytes at a distance from the last occurrence of a mark."""
    data = bytearray(archive)
    place = data.rindex(mark) + offset
    data[place : place + len(value)] = value
    return bytes(data)


def lzma_zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", CONTENT)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (b"neither", "cannot be unpacked"),
        (zip_of(a=CONTENT, b=CONTENT), "holds 2 files where one is expected"),
        (zip_of(), "holds 0 files where one is expected"),
        (zip_of(a=bytes(10**6)), "more than 100 times as large"),
        (gzip.compress(bytes(10**6)), "more than 100 times as large"),
        (gzip.compress(CONTENT)[:-20], "cannot be unpacked"),
        (zip_of(a=CONTENT)[:-30], "cannot be unpacked"),
        (encrypted(), "cannot be unpacked"),
        # Damaged compression, a directory before the start of the file, a name that is no UTF-8.
        (changed(lzma_zip(), b"PK\x01\x02", -40, bytes(20)), "cannot be unpacked"),
        (changed(zip_of(a=CONTENT), b"PK\x05\x06", 16, b"\xff\xff\xff\x00"), "cannot be unpacked"),
        (changed(zip_of(ä=CONTENT), b"PK\x01\x02", 46, b"\xff"), "cannot be unpacked"),
    ],
)
def test_another_archive_is_refused_with_a_reason(
    archive: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "archive").write_bytes(archive)
    with pytest.raises(TransferError, match=reason):
        unpack_one_file(tmp_path / "archive", tmp_path / "file")


@given(drawn=st.data())
def test_a_damaged_archive_gives_the_file_or_a_reason(
    drawn: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = drawn.draw(st.sampled_from([zip_of(a=CONTENT), gzip.compress(CONTENT)]))
    place = drawn.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << drawn.draw(st.integers(0, 7))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "archive").write_bytes(damaged)
    try:
        unpack_one_file(folder / "archive", folder / "file")
    except TransferError:
        return
    assert (folder / "file").read_bytes() == CONTENT
