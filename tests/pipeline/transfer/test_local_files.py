"""Files of a folder are found in either spelling, and linked or copied, never changed."""

import os
import unicodedata
from pathlib import Path

import pytest

from avsnn.pipeline.transfer.errors import TransferError
from avsnn.pipeline.transfer.local_files import find_file, take_file

NFC, NFD = (unicodedata.normalize(form, "été/café [1].mp4") for form in ("NFC", "NFD"))


def write(path: Path, content: bytes = b"sound" * 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18 + 123))
    return path


@pytest.mark.parametrize(("written", "asked"), [(NFC, NFD), (NFD, NFC), (NFC, NFC), (NFD, NFD)])
def test_a_file_is_found_in_either_spelling(tmp_path: Path, written: str, asked: str) -> None:
    write(tmp_path / written)
    assert find_file(tmp_path, asked) == tmp_path / written


def test_each_folder_may_have_its_own_spelling(tmp_path: Path) -> None:
    mixed = f"{NFD.partition('/')[0]}/{NFC.partition('/')[2]}"
    write(tmp_path / mixed)
    assert find_file(tmp_path, NFC) == tmp_path / mixed
    assert find_file(tmp_path, NFD) == tmp_path / mixed


def test_of_two_files_the_one_as_written_is_found(tmp_path: Path) -> None:
    write(tmp_path / NFC)
    write(tmp_path / NFD)
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system takes both spellings for one name")
    assert find_file(tmp_path, NFC) == tmp_path / NFC
    assert find_file(tmp_path, NFD) == tmp_path / NFD


@pytest.mark.parametrize("content", [b"", b"sound" * 300_000])
def test_a_copy_has_the_bytes_and_the_time_of_the_file(tmp_path: Path, content: bytes) -> None:
    found, target = write(tmp_path / "a", content), tmp_path / "b"
    take_file(found, target, link=False)
    assert not target.is_symlink()
    assert target.read_bytes() == content
    assert target.stat().st_mtime_ns == found.stat().st_mtime_ns


def test_a_system_that_cannot_share_blocks_makes_an_ordinary_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError

    found = write(tmp_path / "a", b"sound" * 300_000)
    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    take_file(found, tmp_path / "b", link=False)
    monkeypatch.delattr(os, "copy_file_range")
    take_file(found, tmp_path / "c", link=False)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() == found.read_bytes()


def test_a_system_without_links_makes_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    found, target = write(tmp_path / "a"), tmp_path / "b"
    monkeypatch.setattr(Path, "symlink_to", refuse)
    take_file(found, target, link=True)
    assert not target.is_symlink()
    assert target.read_bytes() == found.read_bytes()


def test_what_is_no_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "to-nothing").symlink_to("gone")
    for name in ("gone", ".", "to-nothing"):
        with pytest.raises(TransferError, match="is missing from the source folder"):
            take_file(tmp_path / name, tmp_path / "target", link=True)
