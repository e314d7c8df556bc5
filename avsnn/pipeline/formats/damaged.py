"""The errors for a prepared file that is missing, damaged or cannot be read."""

import errno
import os

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Folder


class DamagedError(UserError):
    """A prepared file is not as ``prepare`` wrote the file."""


def damaged_error(path: Folder, why: str = "") -> UserError:
    """Return the error for a file that is not as ``prepare`` wrote the file.

    Args:
        path: the file.
        why: what is wrong with the file, as a phrase; may be empty.
    """
    if error := _no_further_file():
        # A library that cannot open a file of its own may take the file that it reads for damaged.
        return unreadable_error(path, error)
    reason = f" ({why})" if why else ""
    return DamagedError(f"{path} is damaged{reason}; run 'avsnn repair' with the data set's name.")


def unreadable_error(path: Folder, error: OSError) -> UserError:
    """Return the error for a file that could not be opened or read.

    Only a file that does not exist is damage. A limit of the system or a missing permission says
    nothing about the content of the file.
    """
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} is missing; run 'avsnn repair' with the data set's name.")
    if error.errno == errno.EMFILE:
        return UserError(
            f"{path} cannot be opened: too many files are open; allow more with 'ulimit -n'."
        )
    if error.errno == errno.ENFILE:
        return UserError(
            f"{path} cannot be opened: the programs of this machine have too many files open; end "
            "some programs, and run the command again."
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return UserError(f"{path} cannot be read: {reason}.")


def _no_further_file() -> OSError | None:
    """Return the error of opening a file, if a limit of the system allows no further open file."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error if error.errno in (errno.EMFILE, errno.ENFILE) else None
    return None
