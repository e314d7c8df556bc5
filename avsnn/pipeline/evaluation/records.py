"""Recorded measures: files in the folder ``report`` of a run."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from avsnn.errors import RunError
from avsnn.pipeline.engine.atomic_files import (
    DISK_FULL_ERRNOS,
    disk_full_error,
    read_only_allowed,
    write_if_changed,
)

R = TypeVar("R", bound=BaseModel)


def read_record(kind: type[R], path: Path, fingerprint: str) -> R | None:
    """Return recorded measures, if the measures belong to the present checkpoint and data.

    Args:
        kind: the class of the record.
        path: path of the record.
        fingerprint: the fingerprint of the measures that are wanted.

    Returns:
        None if the file is missing, damaged, of another version, or of another checkpoint; the same
        measurement then writes the record anew.
    """
    record = read_any_record(kind, path)
    return record if getattr(record, "fingerprint", None) == fingerprint else None


def read_any_record(kind: type[R], path: Path) -> R | None:
    """Return recorded measures of any checkpoint; None if the file is missing or damaged."""
    try:
        # Reading a pipe would wait for ever.
        return kind.model_validate_json(path.read_bytes()) if path.is_file() else None
    except (ValidationError, OSError):
        return None


def write_record(path: Path, record: BaseModel) -> None:
    """Write measures whole or not at all; a run folder that nobody may write to stays as it is."""
    write_beside(path, (record.model_dump_json(indent=1) + "\n").encode())


def write_beside(path: Path, content: bytes) -> bool:
    """Write a file of a report whole or not at all.

    Returns:
        whether the file holds the content now; false where nobody may write.

    Raises:
        RunError: the disk is full, or the place cannot be written for another reason.
    """
    try:
        with read_only_allowed():
            if path.exists() and not path.is_file():
                raise RunError(f"{path} is no plain file; move the place out of the way.")
            write_if_changed(path, content)
            return True
        return False
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise disk_full_error(path.parent) from None
        raise RunError(f"{path} cannot be written: {error.strerror}.") from None
