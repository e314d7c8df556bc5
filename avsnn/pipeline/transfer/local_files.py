"""Files in a folder on this machine: found under each spelling of a name, then linked or copied."""

import errno
import hashlib
import os
import shutil
import unicodedata
from pathlib import Path, PurePosixPath

from avsnn.pipeline.engine.atomic_files import sha256, start_writing
from avsnn.pipeline.transfer.errors import TransferError

MISSING = "is missing from the source folder"

# How the reason begins where nobody may read a file.
UNREADABLE = "cannot be read from the source folder"

# A file of at most this number of bytes is read, hashed and written as a whole.
SMALL_BYTES = 2**16

# Windows changes the bytes of files that are opened without this flag.
_BINARY = getattr(os, "O_BINARY", 0)

# Number of bytes that the system copies with one call.
COPY_BYTES = 2**30


def find_file(folder: Path, path: str) -> Path:
    """Return where a file is, also if the disk spells a name in the other normal form of Unicode.

    A name with accents has two spellings, NFC and NFD, and copying a folder between systems may
    change the spelling. The spelling of ``path`` comes first.

    Args:
        folder: the folder that is searched.
        path: path of the file below the folder.

    Returns:
        the path as written where there is no such file.
    """
    if path.isascii():
        return folder / path
    place = folder
    for name in PurePosixPath(path).parts:
        places = [place / spelling for spelling in spellings(name)]
        place = next(filter(os.path.lexists, places), places[0])
    return place


def spellings(text: str) -> tuple[str, ...]:
    """Return a name or a path as written, and in the two normal forms of Unicode."""
    return (text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD")))


def take_file(found: Path, target: Path, *, link: bool) -> str:
    """Make ``target`` a symbolic link to a file, or a copy of the file.

    The file itself is never written to. A system without links gets a copy.

    Args:
        found: the file.
        target: the path of the link or of the copy; nothing is there yet.
        link: whether a link is wanted.

    Returns:
        the SHA-256 of the bytes, in hexadecimal.

    Raises:
        TransferError: the file is missing, or nobody may read the file.
    """
    try:
        if not found.is_file():
            raise TransferError(MISSING)
        data, stat = _read_small(found)
        if data is None:
            return _take_large(found, target, stat, link=link)
        if not (link and _link(found, target)):
            _write_small(target, data, stat)
        return hashlib.sha256(data).hexdigest()
    except PermissionError as error:
        raise TransferError(f"{UNREADABLE}: {error.strerror}") from None


def _read_small(found: Path) -> tuple[bytes | None, os.stat_result]:
    """Return the bytes of a small file, None for another file, and what the system knows of it.

    A data set has millions of small files; the fewest calls of the system read a file.
    """
    handle = os.open(found, os.O_RDONLY | _BINARY)
    try:
        stat = os.fstat(handle)
        data = os.read(handle, SMALL_BYTES + 1) if stat.st_size <= SMALL_BYTES else b""
    finally:
        os.close(handle)
    return (data if len(data) == stat.st_size else None), stat


def _write_small(target: Path, data: bytes, stat: os.stat_result) -> None:
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        if os.write(handle, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        start_writing(handle)
    finally:
        os.close(handle)
    _keep_time(target, stat)


def _take_large(found: Path, target: Path, stat: os.stat_result, *, link: bool) -> str:
    """Link or copy a file, and return its SHA-256.

    A copy shares the blocks of the file where the file system can do that.
    """
    if link:
        # A file that nobody may read must fail here and not in a later stage.
        digest = sha256(found)
        if _link(found, target):
            return digest
    if not _copy_in_system(found, target):
        shutil.copyfile(found, target)
    _keep_time(target, stat)
    return sha256(target)


def _keep_time(target: Path, stat: os.stat_result) -> None:
    """Give a copy the time of its file, so that a file that is corrected later is noticed."""
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _link(found: Path, target: Path) -> bool:
    """Make a symbolic link; return whether the system has links."""
    try:
        target.symlink_to(found.absolute())
    except (OSError, NotImplementedError):
        return False
    return True


def _copy_in_system(found: Path, target: Path) -> bool:
    """Let the system copy a file, which shares blocks on Btrfs, XFS and NFS; return the success."""
    if not hasattr(os, "copy_file_range"):
        return False
    with found.open("rb") as source, target.open("wb") as copy:
        size = os.fstat(source.fileno()).st_size
        try:
            while os.copy_file_range(source.fileno(), copy.fileno(), COPY_BYTES):
                pass
        except OSError:
            # Many file systems, and two different ones, refuse; an ordinary copy tells real faults.
            return False
        return os.fstat(copy.fileno()).st_size == size
