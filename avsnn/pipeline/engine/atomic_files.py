"""Files that are whole or not there: how avsnn writes, finds and checks a file."""

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from stat import S_ISLNK

from upath import UPath

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.stores import copy_inside, open_url, sha256_of, size_of, upload

#: A folder on this machine, or a folder that fsspec opens by a URL.
Folder = Path | UPath

# Error numbers of a write that found no room: the disk is full, or the user's quota is used up.
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)

# Names of unfinished files: .NAME.WRITER.partial. The first versions wrote a process number alone.
PARTIAL = re.compile(r"\..+\.[\w-]+\.partial")

# The flag SYNC_FILE_RANGE_WRITE of Linux.
_START_WRITING = 2

# Error numbers that tell about the machine at this moment and nothing about the file. A unit that
# meets such an error stays undone, so that the next run does the unit.
TRANSIENT_ERRNOS = (
    *DISK_FULL_ERRNOS,
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ETIMEDOUT, errno.ESTALE),
    # A disk behind a network, or a disk that was unplugged.
    *(errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH),
    *(errno.EAGAIN, errno.ENODEV),
)


@dataclass(frozen=True)
class Output:
    """A published file, as the record of its unit describes the file.

    Attributes:
        path: path of the file, relative to the stage's folder.
        size: size in bytes.
        sha256: SHA-256 of the bytes, in hexadecimal.
        mtime_ns: time of the last change in ns since 1970; 0 for a file behind a URL.
    """

    path: str
    size: int
    sha256: str
    mtime_ns: int


def publish(source: Path, folder: Folder, name: str) -> Output:
    """Move a whole file to its final name, safe against power loss, and describe the file.

    Args:
        source: the file under its temporary name, or a link to a file of the user, which becomes a
            link under the final name.
        folder: where the file goes.
        name: final path of the file, relative to ``folder``.
    """
    target = folder / name
    digest = sha256(source)
    if isinstance(target, UPath):
        upload(source, target)
        return Output(name, source.stat().st_size, digest, mtime_ns=0)
    target.parent.mkdir(parents=True, exist_ok=True)
    output = flush_file(source, name, digest)
    source.replace(target)
    sync_folder(target.parent)
    return output


def start_writing(handle: int) -> None:
    """Ask the system to write the bytes of an open file to the disk, and do not wait.

    Without this, `flush_file` for each of many files writes one file after another, and waits for
    each. (The faster ``syncfs`` would wait for what all other programs have written too, and some
    file systems ignore ``syncfs``.)

    Args:
        handle: descriptor of the file.
    """
    if sync_file_range := _sync_file_range():
        # A system that refuses has lost nothing: `flush_file` does the whole work.
        sync_file_range(handle, 0, 0, _START_WRITING)


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Return the function of that name of Linux, which Python does not offer; None elsewhere."""
    if sys.platform != "linux":
        return None
    import ctypes

    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


def flush_file(source: Path | str, name: str, digest: str | None = None) -> Output:
    """Wait until the bytes of a file are on the disk, and describe the file under its final name.

    Args:
        source: the file, or a link to a file of the user.
        name: final path of the file.
        digest: SHA-256 of the file's bytes, in hexadecimal; None reads the file.
    """
    # Some read-only file systems refuse to flush a file, and the user's file is not ours to flush.
    if S_ISLNK(os.lstat(source).st_mode):
        stat = Path(source).stat()
    else:
        # Windows syncs only files that are open for writing.
        handle = os.open(source, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
        try:
            os.fsync(handle)
            stat = os.fstat(handle)
        finally:
            os.close(handle)
    return Output(name, stat.st_size, digest or sha256(Path(source)), stat.st_mtime_ns)


class DamagedFileError(Exception):
    """A published file holds other bytes than its record says; the message is the path."""


def publish_again(
    source: Folder, folder: Folder, name: str, output: Output, scratch: Path
) -> Output:
    """Publish a published file under another name, without a second copy where that is possible.

    Both names are the same file on this machine, if the file system knows hard links. A published
    file is never written to, so a change of one name leaves the other name as it was.

    Args:
        source: the published file.
        folder: where the other name goes.
        name: the other name, relative to ``folder``.
        output: the description of the file.
        scratch: a temporary name on the disk of ``folder``.

    Raises:
        FileNotFoundError: the published file is gone.
        DamagedFileError: the published file had to be copied, and holds other bytes than were
            written.
    """
    target = folder / name
    if isinstance(target, UPath):
        copy_inside(UPath(source), target)
        return replace(output, path=name)
    target.parent.mkdir(parents=True, exist_ok=True)
    local = Path(str(source))
    try:
        os.link(local, scratch)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(local, scratch)
        if sha256(scratch) != output.sha256:
            scratch.unlink()
            raise DamagedFileError(str(local)) from None
        return publish(scratch, folder, name)
    scratch.replace(target)
    # If both names are the same file already, the rename does nothing.
    scratch.unlink(missing_ok=True)
    sync_folder(target.parent)
    return replace(output, path=name, mtime_ns=target.stat().st_mtime_ns)


def write_atomically(target: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file, whole or not at all.

    Args:
        target: the file.
        data: the content, or its pieces, which are written one by one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = new_partial(target)
    try:
        with partial.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
        publish(partial, target.parent, target.name)
    finally:
        partial.unlink(missing_ok=True)


def new_partial(target: Path) -> Path:
    """Return a name for a file until the file is whole; no other process uses the same name."""
    # Processes of two machines that share a folder may have the same number, so the name holds the
    # machine and a random part too.
    writer = f"{_this_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    return target.with_name(f".{target.name}.{writer}.partial")


def is_partial(path: Folder) -> bool:
    """Return whether a file has a name that `new_partial` gives to unfinished files."""
    return PARTIAL.fullmatch(path.name) is not None


def remove_partial_files(folder: Path) -> None:
    """Remove the unfinished files that killed writers left directly in a folder.

    Args:
        folder: the folder, into which nobody writes meanwhile; the folder may be missing.
    """
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)


def remove_partial_files_of_dead_writers(folder: Path) -> None:
    """Remove the unfinished files that killed writers of this machine left directly in a folder.

    Args:
        folder: a folder without a lock, into which other processes may write meanwhile; the folder
            may be missing.
    """
    writer = re.compile(rf"\..+\.{re.escape(_this_host())}-(\d+)-[0-9a-f]{{8}}\.partial")
    for path in folder.glob(".*.partial"):
        match = writer.fullmatch(path.name)
        if match is not None and not _is_alive(int(match[1])):
            path.unlink(missing_ok=True)


def _this_host() -> str:
    return re.sub(r"[^\w-]", "-", platform.node())[:40]


def _is_alive(process: int) -> bool:
    """Return whether a process of this machine may be running."""
    if sys.platform == "win32":
        # The signal 0 asks Linux whether the process runs, and is Ctrl-C on Windows.
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_if_changed(target: Path, data: bytes) -> None:
    """Write a small file, whole or not at all, unless the file holds ``data`` already."""
    if not holds(target, data):
        write_atomically(target, data)


def holds(target: Path, data: bytes) -> bool:
    """Return whether a small file holds ``data``."""
    return target.exists() and target.read_bytes() == data


@contextmanager
def read_only_allowed() -> Iterator[None]:
    """Leave the block without an error where nobody may write, such as on a read-only disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise


def set_aside(path: Path, reason: str) -> Path:
    """Rename a file that no longer serves to ``NAME.reason``; replace no other file.

    Returns:
        the new path; a number follows the reason if a file of that name exists.
    """
    names = (f"{path.name}.{reason}{'' if n == 1 else n}" for n in count(1))
    target = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    return path.rename(target)


def why_damaged(path: Folder, output: Output, *, rehash: bool = False) -> str:
    """Return what is wrong with a published file, as a phrase; empty if nothing is wrong.

    Args:
        path: the file.
        output: what was written.
        rehash: read all bytes of the file. Otherwise the bytes are read only where the file's time
            has changed; a file behind a URL is then checked by its size alone.
    """
    if isinstance(path, UPath):
        return _why_damaged_in_store(path, output, rehash=rehash)
    try:
        stat = path.stat()
    except OSError:
        return "is missing"
    if stat.st_size != output.size:
        return _other_size(stat.st_size, output)
    # Every file of a copied tree has a new time, so a new time alone does not prove damage.
    if (rehash or stat.st_mtime_ns != output.mtime_ns) and sha256(path) != output.sha256:
        return "holds other bytes than were written"
    return ""


def _why_damaged_in_store(path: UPath, output: Output, *, rehash: bool) -> str:
    try:
        size = size_of(path)
        if size != output.size:
            return _other_size(size, output)
        if rehash and sha256_of(path, size) != output.sha256:
            return "holds other bytes than were written"
    except FileNotFoundError:
        return "is missing"
    return ""


def _other_size(size: int, output: Output) -> str:
    return f"has {size:,} bytes, {output.size:,} were written"


def sha256(path: Folder) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def name_in(folder: Path, place: Folder) -> str:
    """Return the path of ``place`` relative to the folder; for a place behind a URL, the URL."""
    return str(place) if isinstance(place, UPath) else str(place.relative_to(folder))


def locate(folder: Path, name: str) -> Folder:
    """Return the place that :func:`name_in` named."""
    return open_url(name) if "://" in name else folder / name


class DiskFullError(RunError):
    """A write found no room."""


def disk_full_error(folder: Folder) -> DiskFullError:
    """Return the error to raise where a write found no room."""
    return DiskFullError(
        f"the disk that holds {folder} is full. What is done is safe: free some space and run the "
        "same command again."
    )


def not_written_error(
    target: Path, error: OSError, advice: str = "give another name to write"
) -> UserError | RunError:
    """Return the error to raise where a file or a folder that a person named cannot be written.

    Args:
        target: the file or the folder.
        error: why the target cannot be written.
        advice: what the person can do instead, as the end of a sentence.
    """
    if error.errno in DISK_FULL_ERRNOS:
        return disk_full_error(target if target.is_dir() else target.parent)
    return UserError(f"{target} cannot be written: {error.strerror}; {advice}.")


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, so that a rename survives power loss."""
    if sys.platform == "win32":
        # Windows opens no folder as a file.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
