"""Reads files straight from a zip, so that nothing is unpacked to the disk."""

import zipfile
from functools import lru_cache
from pathlib import Path

from avsnn.datasets_manifest.clips import is_plain_path
from avsnn.pipeline.media.errors import MediaError, damage_is_one_phrase

# Other compressions of zip inflate a whole block at once, so no limit holds their memory.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

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
    with damage_is_one_phrase(f"cannot be read from {file.name}"), archive.open(info) as member:
        # Without a size, `read` inflates a file whose size is false up to 2 GiB.
        data = member.read(info.file_size)
    if len(data) != info.file_size:
        raise MediaError(f"has {len(data):,} bytes in {file.name}, not {info.file_size:,}")
    return data


def _open(file: Path) -> zipfile.ZipFile:
    stat = file.stat()
    return _open_once(file, stat.st_mtime_ns, stat.st_size)


# The clips of MNIST-DVS come from ten zips in turn.
@lru_cache(maxsize=16)
def _open_once(file: Path, mtime_ns: int, size: int) -> zipfile.ZipFile:
    """Open a zip once for all of its files: the list of 60,000 files takes a second to read.

    Args:
        file: the zip.
        mtime_ns: time of the last change of the zip; a changed zip is opened again.
        size: size of the zip in bytes, for the same purpose.
    """
    with damage_is_one_phrase("is no zip, or is damaged"):
        return zipfile.ZipFile(file)
