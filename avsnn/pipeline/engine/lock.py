"""The lock of a folder: one run at a time writes into the folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.atomic_files import (
    DISK_FULL_ERRNOS,
    disk_full_error,
    remove_partial_files,
)

# Folders into which only the holder of the lock writes. `report` is none: evaluate needs no lock.
FOLDERS_UNDER_LOCK = (".", "checkpoints", "state", "table")


@contextmanager
def lock_folder(folder: Path, *, tidy: bool = True) -> Iterator[None]:
    """Hold the lock of a folder while the context is open.

    Args:
        folder: the folder; it is made if it does not exist.
        tidy: remove the scratch files that a killed run left.

    Raises:
        UserError: the folder cannot be made.
        RunError: another run holds the lock, or the disk of the folder is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        with lock.acquire(timeout=0):
            if tidy:
                shutil.rmtree(folder / "state" / "partial", ignore_errors=True)
                for name in FOLDERS_UNDER_LOCK:
                    remove_partial_files(folder / name)
            yield
    except Timeout:
        raise RunError(
            f"another avsnn run is writing to {folder}. Wait for the end of that run, or choose "
            "another folder."
        ) from None
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise disk_full_error(folder) from None
        # The caller's work runs inside this context too; only an error about the folder itself, or
        # about a folder above it, means that the folder cannot be made.
        is_about_folder = error.filename is not None and folder.is_relative_to(str(error.filename))
        if is_about_folder and isinstance(
            error, PermissionError | NotADirectoryError | FileNotFoundError
        ):
            reason = f"cannot write to {folder}: {error.strerror}. Choose another folder."
            raise UserError(reason) from None
        raise
