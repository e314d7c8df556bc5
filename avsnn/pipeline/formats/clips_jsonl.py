"""The index of a data set: ``clips.jsonl``, one row for each clip whose files are all here."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.formats.damaged import damaged_error


class IndexRow(BaseModel):
    """A clip whose files are all here: one line of ``clips.jsonl``.

    Attributes:
        key: key of the clip.
        label: index of the class.
        label_name: name of the class.
        group: the speaker, actor or recording that the clip comes from.
        part: part of the clip in the default split.
        splits: part of the clip in every split, by the name of the split.
        audio: path of the audio file below the folder of the files as published.
        visual: path of the image or video below the same folder as the audio file.
        sha256: SHA-256 of both files, by path.
    """

    key: str
    label: int
    label_name: str
    group: str
    part: str
    splits: dict[str, str]
    audio: str
    visual: str
    sha256: dict[str, str]

    @property
    def source(self) -> str:
        """A fingerprint of the two files, which changes with their names and their bytes."""
        return fingerprint([self.audio, self.visual, self.sha256])


def clips_fingerprint(rows: list[IndexRow], split: str) -> str:
    """Return the fingerprint of what a training on a split depends on, besides the caches.

    The fingerprint covers the label, the name of the class and the part of every clip.

    Args:
        rows: the rows of the index.
        split: name of the split.
    """
    facts = [(row.key, row.label, row.label_name, row.splits.get(split)) for row in rows]
    return fingerprint(sorted(facts))


def read_index(folder: Path) -> list[IndexRow]:
    """Return the rows of ``clips.jsonl``; no rows where the file is not written yet.

    Args:
        folder: the folder of ``clips.jsonl``.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / "clips.jsonl"
    if not path.exists():
        return []
    try:
        return [IndexRow.model_validate_json(line) for line in path.read_bytes().splitlines()]
    except ValidationError:
        raise damaged_error(path) from None
