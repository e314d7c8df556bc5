"""The index of a data set: ``clips.jsonl``, one row for each clip whose files are all here."""

from pathlib import Path

from pydantic import ValidationError

from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.formats.clip_index import IndexRow
from avsnn.pipeline.formats.damaged import damaged_error


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
