"""Recorded measures: files in the folder ``report`` of a run."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from avsnn.pipeline.engine.atomic_files import read_only_allowed, write_if_changed

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
        return kind.model_validate_json(path.read_bytes())
    except (ValidationError, OSError):
        return None


def write_record(path: Path, record: BaseModel) -> None:
    """Write measures whole or not at all; a run folder that nobody may write to stays as it is."""
    with read_only_allowed():
        write_if_changed(path, (record.model_dump_json(indent=1) + "\n").encode())
