"""One writer for each folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from avsnn.errors import UserError
from avsnn.pipeline.engine.files import DISK_FULL, disk_full


@contextmanager
def lock_folder(folder: Path, *, tidy: bool = True) -> Iterator[None]:
    """Holds the folder's lock; removes what a killed run left half done, where ``tidy``.

    Raises:
        UserError: another run holds it, the folder cannot be made, or its disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        with lock.acquire(timeout=0):
            if tidy:
                shutil.rmtree(folder / "state" / "partial", ignore_errors=True)
            yield
    except Timeout:
        raise UserError(
            f"another avsnn run is writing to {folder}. Wait for it, or use another --root."
        ) from None
    except OSError as error:
        if error.errno in DISK_FULL:
            raise disk_full(folder) from None
        named = error.filename is not None and folder.is_relative_to(str(error.filename))
        if named and isinstance(error, PermissionError | NotADirectoryError | FileNotFoundError):
            reason = f"cannot write to {folder}: {error.strerror}. Choose another."
            raise UserError(reason) from None
        raise
