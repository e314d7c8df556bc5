"""The lock of a folder: one run at a time writes into the folder."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.atomic_files import (
    DISK_FULL_ERRNOS,
    disk_full_error,
    remove_partial_files,
)

with suppress(ImportError):
    # Windows has no such module.
    import fcntl

# Folders into which only the holder of the lock writes. `report` is none: evaluate needs no lock.
FOLDERS_UNDER_LOCK = (".", "checkpoints", "state", "table")

# How long a reader waits for a run that writes, in s, before the reader leaves.
READER_WAIT_S = 2.0


class BusyError(RunError):
    """Another run holds the lock of a folder."""


@contextmanager
def lock_folder(folder: Path, *, tidy: bool = True) -> Iterator[None]:
    """Hold the lock of a folder while the context is open.

    Args:
        folder: the folder; it is made if it does not exist.
        tidy: remove the scratch files that killed processes left, before and after.

    Raises:
        UserError: the folder cannot be made.
        RunError: another run holds the lock, or the disk of the folder is full.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Readers hold the lock for moments only.
        lock.acquire(timeout=READER_WAIT_S / 2)
    except Timeout:
        raise _busy_error(folder) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            raise disk_full_error(folder) from None
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to {folder}: {reason}. Choose another folder.") from None
    try:
        if tidy:
            _remove_scratch(folder)
        yield
        # A worker of a cluster may have died in this run.
        if tidy:
            _remove_scratch(folder)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise disk_full_error(folder) from None
        raise
    finally:
        lock.release()


def _remove_scratch(folder: Path) -> None:
    shutil.rmtree(folder / "state" / "partial", ignore_errors=True)
    for name in FOLDERS_UNDER_LOCK:
        remove_partial_files(folder / name)


def require_no_writer(folder: Path) -> None:
    """Wait shortly for a run that writes into a folder; write nothing.

    Raises:
        RunError: another run writes there.
    """
    deadline = time.monotonic() + READER_WAIT_S
    while has_writer(folder):
        if time.monotonic() > deadline:
            raise _busy_error(folder)
        time.sleep(0.05)


def has_writer(folder: Path) -> bool:
    """Return whether a run writes into a folder at this moment; write nothing.

    Readers share the folder. A folder without a lock file, or on a read-only disk, has no writer
    that this process could meet.
    """
    path = folder / ".lock"
    try:
        if sys.platform == "win32":
            # Windows has no locks that readers share, so a reader holds the lock for a moment.
            if path.exists():
                FileLock(path).acquire(timeout=0).lock.release()
            return False
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, Timeout):
        return True
    except OSError:
        return False
    return False


def hold_for_reading(path: Path) -> BinaryIO | None:
    """Open a file that lists what a long reader reads, so that `is_held_for_reading` is true.

    Returns:
        the open file, which holds the lock until it is closed; None where the file system knows no
        locks or the file cannot be opened.
    """
    try:
        file = path.open("rb")
        if sys.platform == "win32":
            return file
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return None
    return file


def is_held_for_reading(path: Path) -> bool:
    """Return whether a process on this machine has called `hold_for_reading` for a file.

    Windows has no locks that readers share. There, every file may be held.
    """
    if sys.platform == "win32":
        return True
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _busy_error(folder: Path) -> BusyError:
    return BusyError(
        f"another avsnn run is writing to {folder}. Wait for the end of that run, or choose "
        "another folder."
    )
