"""Reads files straight from a zip, so that nothing is unpacked to the disk."""

import lzma
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

from avsnn.pipeline.media.errors import MediaError

# What `zipfile` raises for a damaged archive. NotImplementedError is an unknown compression, and
# RuntimeError is an encrypted file.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


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
    ]
    if not names:
        raise MediaError(f"has no {suffix} file")
    return names


def read_member(file: Path, name: str, max_bytes: int) -> bytes:
    """Return the bytes of a file in a zip.

    Raises:
        MediaError: the zip is damaged, has no such file, or the file is encrypted, damaged, or
            larger than ``max_bytes``.
    """
    archive = _open(file)
    try:
        info = archive.getinfo(name)
        if info.file_size > max_bytes:
            raise MediaError(f"has {info.file_size:,} bytes, and the limit is {max_bytes:,}")
        return archive.read(info)
    except KeyError:
        raise MediaError(f"is not in {file.name}") from None
    except ZIP_ERRORS as error:
        raise MediaError(f"cannot be read from {file.name}: {error}") from None


def _open(file: Path) -> zipfile.ZipFile:
    stat = file.stat()
    return _open_once(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _open_once(file: Path, mtime_ns: int, size: int) -> zipfile.ZipFile:
    """Open a zip once for all of its files: the list of 60,000 files takes a second to read.

    Args:
        file: the zip.
        mtime_ns: time of the last change of the zip; a changed zip is opened again.
        size: size of the zip in bytes, for the same purpose.
    """
    try:
        return zipfile.ZipFile(file)
    except ZIP_ERRORS as error:
        raise MediaError(f"is no zip, or is damaged: {error}") from None
