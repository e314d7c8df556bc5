"""Reads single files from a zip, so that nobody need unpack the whole zip to the disk."""

import shutil
import zipfile
from functools import lru_cache
from pathlib import Path

from avsnn.datasets_manifest.clips import is_plain_path
from avsnn.pipeline.media.errors import MediaError, damage_is_one_phrase

# Other compressions of zip inflate a whole block at once, so no limit holds their memory.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

BLOCK_BYTES = 2**20

ENCRYPTED = 1  # the bit of the flags that says so


def list_members(file: Path, suffix: str) -> list[str]:
    """Return the names of the files in a zip that have a suffix, without hidden files.

    Raises:
        MediaError: the file is no zip, is damaged, or has no such file.
    """
    names = [
        name
        for name in _open(file).namelist()
        # macOS puts hidden copies of attributes, with the same suffix, beside the files.
        if name.endswith(suffix) and not name.rpartition("/")[2].startswith(".")
        if not name.startswith("__MACOSX/")
    ]
    if not names:
        raise MediaError(f"has no {suffix} file")
    return names


def read_member(file: Path, name: str, max_bytes: int) -> bytes:
    """Return the bytes of a file in a zip, which takes the memory of the bytes and no more.

    Raises:
        MediaError: the zip is damaged, has no such file, or the file is encrypted, damaged, larger
            than ``max_bytes``, compressed with another method than deflate, or has a name that
            leads out of a folder.
        OSError: the zip cannot be read.
    """
    archive, info = _find(file, name, max_bytes)
    with damage_is_one_phrase(f"cannot be read from {file.name}"), archive.open(info) as member:
        # Without a size, `read` inflates a file whose size is false up to 2 GiB.
        data = member.read(info.file_size)
    _require_size(file, info, len(data))
    return data


def copy_member(file: Path, name: str, target: Path, max_bytes: int) -> None:
    """Write a file in a zip to ``target``, block by block; the checksum in the zip is checked.

    Raises:
        MediaError: like `read_member`.
        OSError: the zip cannot be read, or the disk fails.
    """
    archive, info = _find(file, name, max_bytes)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as copy:
        with damage_is_one_phrase(f"cannot be read from {file.name}"), archive.open(info) as member:
            shutil.copyfileobj(member, copy, BLOCK_BYTES)
        _require_size(file, info, copy.tell())


def _find(file: Path, name: str, max_bytes: int) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
    """Return a zip, and what the zip says of one of its files; refuse a file that is a trap."""
    if not is_plain_path(name):
        raise MediaError("has a name that is no plain path")
    archive = _open(file)
    info = archive.NameToInfo.get(name)
    if info is None:
        raise MediaError(f"is not in {file.name}")
    if info.flag_bits & ENCRYPTED:
        raise MediaError("is encrypted")
    if info.compress_type not in METHODS:
        raise MediaError(f"is compressed with method {info.compress_type}, and not with deflate")
    if info.file_size > max_bytes:
        raise MediaError(f"has {info.file_size:,} bytes, and the limit is {max_bytes:,}")
    return archive, info


def _require_size(file: Path, info: zipfile.ZipInfo, found: int) -> None:
    if found != info.file_size:
        raise MediaError(f"has {found:,} bytes in {file.name}, not {info.file_size:,}")


def _open(file: Path) -> zipfile.ZipFile:
    stat = file.stat()
    return _open_once(file, stat.st_mtime_ns, stat.st_size)


# The clips of RAVDESS come from 24 zips in turn.
@lru_cache(maxsize=32)
def _open_once(file: Path, mtime_ns: int, size: int) -> zipfile.ZipFile:
    """Open a zip once for all of its files: the list of 60,000 files takes a second to read.

    Args:
        file: the zip.
        mtime_ns: time of the last change of the zip; a changed zip is opened again.
        size: size of the zip in bytes, for the same purpose.
    """
    with damage_is_one_phrase("is no zip, or is damaged"):
        return zipfile.ZipFile(file)
