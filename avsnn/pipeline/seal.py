"""Was all of it prepared before? Told from one file, where planning would look at every unit.

A finished prepare leaves a seal: the digest of all that its plan was made of (request, manifest,
code), what its stages counted, and size and time of every file that it wrote, the journals among
them. While all of that holds, planning would find nothing to do, and a rerun need not plan.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from avsnn.pipeline.files import write_if_changed
from avsnn.pipeline.journal import Counts

SEAL = Path("state", "seal.json")


class Seal(BaseModel):
    """``state/seal.json``.

    Attributes:
        mark: digest of what the plan was made of.
        stages: what each counted.
        files: size in bytes and time in ns of every file, by its path below the data set's folder.
    """

    mark: str
    stages: list[Counts]
    files: dict[str, tuple[int, int]]


def set_seal(
    folder: Path,
    *,
    mark: str,
    stages: list[Counts],
    written: dict[str, tuple[int, int]],
    beside: Iterable[Path],
) -> None:
    """Seals what a prepare has finished.

    Args:
        folder: the data set's.
        mark: digest of what the plan was made of.
        stages: what each counted.
        written: size and time of every file of every stage, as recorded.
        beside: files to seal as they are, such as the journals.
    """
    for path in beside:
        stat = path.stat()
        written[str(path.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns)
    seal = Seal(mark=mark, stages=stages, files=written)
    write_if_changed(folder / SEAL, seal.model_dump_json().encode())


def unbroken_seal(folder: Path, *, mark: str) -> list[Counts] | None:
    """What the stages of a finished prepare counted; None where there is something to look at."""
    with suppress(OSError, ValidationError):
        seal = Seal.model_validate_json((folder / SEAL).read_bytes())
        if seal.mark == mark and all(
            _is_as_it_was(f"{folder}/{name}", *stat) for name, stat in seal.files.items()
        ):
            return seal.stages
    return None


def _is_as_it_was(path: str, size: int, mtime_ns: int) -> bool:
    # Paths as text: that of a pathlib object costs more than the look at its file.
    stat = os.stat(path)  # noqa: PTH116
    return (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns)
