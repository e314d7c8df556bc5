"""Files that are whole or not there: how anything is written, found again and checked."""

import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from upath import UPath

from avsnn.errors import UserError

#: A folder on this machine, or one that fsspec knows by its URL.
Folder = Path | UPath


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Output:
    """A published file as its record knows it."""

    path: str
    size: int
    sha256: str
    mtime_ns: int


def locate(folder: Path, name: str) -> Folder:
    """What :func:`name_in` names: a place below the folder, or one with a URL of its own."""
    return UPath(name) if "://" in name else folder / name


def name_in(folder: Path, place: Folder) -> str:
    """A place by its path below the folder, or by its URL."""
    return str(place) if isinstance(place, UPath) else str(place.relative_to(folder))


def sha256(path: Folder) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def publish(source: Path, folder: Folder, name: str) -> Output:
    """Moves a whole file to its final name, safe against power loss, and says what it holds."""
    target = folder / name
    digest = sha256(source)
    if isinstance(target, UPath):
        return _upload(source, target, Output(name, source.stat().st_size, digest, mtime_ns=0))
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)
    _sync_folder(target.parent)
    stat = target.stat()
    return Output(path=name, size=stat.st_size, sha256=digest, mtime_ns=stat.st_mtime_ns)


def _upload(source: Path, target: UPath, output: Output) -> Output:
    """The same to a URL: under another name first, since not every store writes whole files."""
    partial = f"{target.path}.partial"
    target.fs.makedirs(target.parent.path, exist_ok=True)
    target.fs.put_file(str(source), partial)
    if target.fs.size(partial) != output.size:
        raise OSError(errno.EIO, "the store kept another size than was sent", str(target))
    target.fs.mv(partial, target.path)
    return output


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(target: Path, data: bytes) -> None:
    """A small file, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    publish(partial, target.parent, target.name)


def write_if_changed(target: Path, data: bytes) -> None:
    """The same, unless it holds just that already."""
    if not target.exists() or target.read_bytes() != data:
        write_atomically(target, data)


def why_damaged(path: Folder, output: Output, *, rehash: bool = False) -> str:
    """What is wrong with a published file, by size and time, or by its bytes; empty if nothing."""
    try:
        stat = path.stat()
    except OSError:
        return "is missing"
    if stat.st_size != output.size:
        return f"has {stat.st_size:,} bytes, {output.size:,} were written"
    if isinstance(path, UPath) and not rehash:
        return ""
    # A copied tree has new times: the bytes decide, not the clock.
    if (rehash or stat.st_mtime_ns != output.mtime_ns) and sha256(path) != output.sha256:
        return "holds other bytes than were written"
    return ""


def disk_full(folder: Folder) -> UserError:
    """What to say where a write found no room."""
    return UserError(
        f"the disk that holds {folder} is full. What is done is safe: free some space and run the "
        "same command again."
    )
