"""Copies of files of a store on a disk of this machine, which all processes of the machine share.

Training reads the same files in every epoch and in every process, so each file is copied once, as a
whole. The copies take a bounded part of the disk: a copy that was used longest ago is removed
before another file is copied. A copy gets its name when it is whole, so a process that is killed
leaves no copy that is cut, and a process that reads a copy reads on after its removal.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from pydantic import ByteSize, TypeAdapter, ValidationError
from upath import UPath

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import (
    DISK_FULL_ERRNOS,
    new_partial,
    remove_partial_files_of_dead_writers,
)
from avsnn.pipeline.engine.stores import store_errors
from avsnn.pipeline.formats.damaged import unreadable_error

#: Environment variables that name the folder and the limit, also for child processes.
FOLDER_VARIABLE, LIMIT_VARIABLE = "AVSNN_CACHE_DIR", "AVSNN_CACHE_LIMIT"

DEFAULT_LIMIT = "50GB"

# A process copies this many files at once.
THREADS = 16

# Locks of the files, shared out by the hash of the name: two processes never copy the same file.
_LOCKS = 64

# When the limit is reached, copies are removed down to this share of the limit, so that not every
# new file has to look at all copies.
_SHARE_KEPT = 0.9


# The name of a folder of copies.
_OWN_FOLDER = re.compile(r"[0-9a-f]{16}")

# A copy that is not whole yet: its name tells which size the copy will have.
_PROMISED = re.compile(r"\.(\d+)~")


class _Copy(NamedTuple):
    used_ns: int
    size: int
    path: Path


class LocalCache:
    """A folder of copies.

    Args:
        folder: the folder, on a disk of this machine.
        limit: the copies take this many bytes at most.
        version: changes when the content of the files in the store changes.
    """

    def __init__(self, folder: Path, limit: int, version: str = "") -> None:
        self.folder, self.limit, self._version = folder, limit, version
        self._locks = folder / "locks"
        # The number of bytes that all copies take; a process that was killed may have left a number
        # that is too large, and then the copies are counted again.
        self._used = folder / "used"

    def note(self, place: UPath) -> str:
        """Return a sentence about the copies of a folder, for a person."""
        return (
            f"{place}: files are copied to {self.folder} when they are first needed, at most "
            f"{_size_text(self.limit)} (--cache-dir, --cache-limit)"
        )

    def copies_of(self, place: UPath) -> "Copies":
        """Return the copies of the files of a folder in a store."""
        name = hashlib.sha256(f"{place}\n{self._version}".encode()).hexdigest()[:16]
        return Copies(self, place, self.folder / name)

    def lock(self, name: str) -> FileLock:
        """Return a lock of this name, which the system releases when its process ends."""
        self._locks.mkdir(parents=True, exist_ok=True)
        return FileLock(self._locks / f"{name}.lock")

    def reserve(self, partial: Path, size: int, source: UPath) -> None:
        """Make room for a file that will be copied, and make the file, still empty.

        Raises:
            UserError: the limit or the disk is too small.
        """
        if size > self.limit:
            raise UserError(
                f"the cache in {self.folder} may take {_size_text(self.limit)}, but {source} alone "
                f"has {_size_text(size)}; allow more with --cache-limit."
            )
        while not self._reserved(partial, size):
            # Files that are being copied take the room, and will soon be copies to remove.
            time.sleep(0.05)

    def _reserved(self, partial: Path, size: int) -> bool:
        with self.lock("all"):
            used = self._read_used()
            has_room = shutil.disk_usage(self.folder).free > size
            if used is None or used + size > self.limit or not has_room:
                used = self._make_room(size)
            if used is None:
                return False
            partial.parent.mkdir(exist_ok=True)
            partial.touch()
            self._used.write_text(str(used + size))
            return True

    def _read_used(self) -> int | None:
        try:
            return int(self._used.read_text())
        except (OSError, ValueError):
            return None

    def _make_room(self, size: int) -> int | None:
        """Remove copies until there is room for a new file.

        Returns:
            the bytes of all other copies; None if there will be room when other files are copied.

        Raises:
            UserError: the disk is full of other files.
        """
        for folder in self._own_folders():
            remove_partial_files_of_dead_writers(folder)
        copies = sorted(self._copies())
        used = sum(copy.size for copy in copies)
        wanted = max(0, int(self.limit * _SHARE_KEPT) - size)
        is_copying = False
        for copy in copies:
            if used <= wanted and shutil.disk_usage(self.folder).free > size:
                break
            if copy.path.name.startswith("."):
                is_copying = True
                continue
            # Windows removes no file that is open.
            with suppress(PermissionError):
                copy.path.unlink(missing_ok=True)
                used -= copy.size
        if used + size <= self.limit and shutil.disk_usage(self.folder).free > size:
            return used
        if is_copying:
            return None
        raise no_room_error(self.folder)

    def _copies(self) -> Iterator[_Copy]:
        for folder in self._own_folders():
            for path in folder.iterdir():
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue
                promised = _PROMISED.match(path.name)
                size = int(promised[1]) if promised else stat.st_size
                yield _Copy(stat.st_mtime_ns, size, path)

    def _own_folders(self) -> list[Path]:
        # A person may name a folder that holds other things.
        return [path for path in self.folder.iterdir() if _OWN_FOLDER.fullmatch(path.name)]


class Copies:
    """The copies of the files of one folder in a store.

    Args:
        cache: the cache of all copies.
        place: the folder in the store.
        folder: the folder of the copies.
    """

    def __init__(self, cache: LocalCache, place: UPath, folder: Path) -> None:
        self._cache, self.place, self._folder = cache, place, folder

    def fetch(self, names: Iterable[str]) -> None:
        """Copy the files that are not here, many at once; mark all as used now.

        Args:
            names: paths of the files, below the folder in the store.

        Raises:
            UserError: a file is missing in the store, there is no room for a copy, or the
                credentials are missing or wrong.
            StoreError: the store does not answer.
        """
        missing = [name for name in names if not self._touch(name)]
        if len(missing) == 1:
            self._copy(missing[0])
        elif missing:
            with ThreadPoolExecutor(min(THREADS, len(missing))) as pool:
                list(pool.map(self._copy, missing))

    def path(self, name: str) -> Path:
        """Return the copy of a file, which is made if it is not here; raise as `fetch`."""
        self.fetch([name])
        return self._local(name)

    def remove(self) -> None:
        """Remove all copies, which are made again when they are needed."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _local(self, name: str) -> Path:
        return self._folder / name.replace("/", "~")

    def _touch(self, name: str) -> bool:
        try:
            os.utime(self._local(name))
        except OSError:
            return False
        return True

    def _copy(self, name: str) -> None:
        target, source = self._local(name), self.place / name
        try:
            number = int(hashlib.sha256(name.encode()).hexdigest(), 16) % _LOCKS
            with self._cache.lock(f"{self._folder.name}-{number}"):
                # Another process may have copied the file while this process waited.
                if self._touch(name):
                    return
                try:
                    with store_errors(source):
                        size = source.fs.size(source.path)
                except FileNotFoundError as error:
                    raise unreadable_error(source, error) from None
                partial = new_partial(target.with_name(f"{size}~{target.name}"))
                try:
                    self._cache.reserve(partial, size, source)
                    with store_errors(source):
                        source.fs.get_file(source.path, str(partial))
                    if partial.stat().st_size != size:
                        raise UserError(f"{source} has changed while it was read; try again.")
                    partial.replace(target)
                finally:
                    partial.unlink(missing_ok=True)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise no_room_error(self._cache.folder) from None
            raise UserError(
                f"files of {self.place} cannot be copied to {self._cache.folder} "
                f"({error.strerror or error}); name another folder with --cache-dir."
            ) from None


def open_local_cache(version: str = "") -> LocalCache:
    """Return the cache that the environment names, by default in the user's folder of caches.

    Args:
        version: changes when the content of the files in the store changes.

    Raises:
        UserError: the limit is no size.
    """
    text = os.environ.get(LIMIT_VARIABLE) or DEFAULT_LIMIT
    try:
        limit = TypeAdapter(ByteSize).validate_python(text)
    except ValidationError:
        raise UserError(
            f"--cache-limit {text} is no size; give a number with a unit, such as 50GB."
        ) from None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = os.environ.get(FOLDER_VARIABLE) or Path(home, "avsnn", "store")
    return LocalCache(Path(folder).absolute(), limit, version)


def no_room_error(folder: Path) -> UserError:
    """Return the error to raise where a copy finds no room on the disk."""
    return UserError(
        f"the disk has no room for the copies of a store in {folder}; free some space, or name "
        "another folder with --cache-dir."
    )


def _size_text(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
