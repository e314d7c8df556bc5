"""``prepared.json``: what a finished prepare leaves for training."""

import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from avsnn.datasets_manifest import load
from avsnn.errors import UserError
from avsnn.pipeline.formats.prepare_settings import PrepareSettings

# Raise this number by hand when shards or caches get another layout, which older code cannot read.
LAYOUT = 3

M = TypeVar("M", bound=BaseModel)


class Prepared(BaseModel):
    """``prepared.json``: what the last finished prepare left for training.

    Attributes:
        dataset: name of the data set.
        settings: the settings that decided the bytes.
        fingerprint: changes with the content of the caches.
        shards: the folder of the shards: its path below the data set's folder, or its URL.
        frames: the frame cache, named like the shards.
        audio: the audio cache, named like the shards.
        index: the folder of ``clips.jsonl``, below the data set's folder.
        clips: number of clips that are ready for training.
        failed: number of failures in all stages.
        bytes: size of all files that the stages wrote.
        layout: number of the layout of shards and caches; see ``LAYOUT``.
        notes: phrases on parts of a split that have no clips, or no clips of some classes, and on
            events that no cache counts.
    """

    dataset: str
    settings: PrepareSettings
    fingerprint: str
    shards: str
    frames: str
    audio: str
    index: str
    clips: int
    failed: int
    bytes: int
    layout: int = 1
    notes: tuple[str, ...] = ()

    def as_text(self) -> str:
        """Return the content of the file."""
        return self.model_dump_json(indent=1)


def load_prepared(root: Path, dataset: str) -> Prepared | None:
    """Return what the last finished prepare left, or None where no prepare has finished.

    Raises:
        UserError: ``prepared.json`` is damaged, or there is no such data set.
    """
    path = root / load(dataset).name / "prepared.json"
    return read_json_file(Prepared, path, dataset)


def require_prepared(root: Path, dataset: str) -> Prepared:
    """Return what the last finished prepare left.

    Raises:
        UserError: no prepare has finished, ``prepared.json`` is damaged, another version of avsnn
            prepared the data, or there is no such data set.
    """
    prepared = load_prepared(root, dataset)
    if prepared is None:
        raise not_prepared_error(root, dataset)
    if prepared.layout != LAYOUT:
        raise UserError(
            f"{dataset} in {root} was prepared by a version of avsnn with another layout of files; "
            f"run 'avsnn prepare {dataset} --root {root}' again."
        )
    return prepared


def not_prepared_error(root: Path, dataset: str) -> UserError:
    """Return the error of a command that needs a prepared data set."""
    return UserError(
        f"{dataset} is not prepared in {root}; run 'avsnn prepare {dataset} --root {root}' first, "
        "or give the folder that holds it with --root."
    )


def read_json_file(kind: type[M], path: Path, dataset: str) -> M | None:
    """Read one of the JSON files that ``prepare`` writes for a data set; None where there is none.

    Raises:
        UserError: the file is damaged or cannot be read.
    """
    # Not `Path.exists`, which raises an exception for a loop of links and for a name too long.
    if not os.path.exists(path):  # noqa: PTH110
        return None
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(
            f"{path} is damaged; run 'avsnn prepare {dataset}' again, which writes it anew."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
