"""``clips.jsonl``: one row for each clip whose files are all here."""

from pathlib import Path

from pydantic import BaseModel


class IndexRow(BaseModel):
    """A clip whose files are all here.

    ``position`` counts the clips of its part in the default split, those with missing files too,
    so that a file that arrives later moves no other clip to another shard.
    """

    key: str
    label: int
    label_name: str
    group: str
    part: str
    position: int
    splits: dict[str, str]
    audio: str
    visual: str
    sha256: dict[str, str]


def read_index(folder: Path) -> list[IndexRow]:
    """The rows of ``clips.jsonl``; none where it was not written yet."""
    path = folder / "clips.jsonl"
    if not path.exists():
        return []
    return [IndexRow.model_validate_json(line) for line in path.read_bytes().splitlines()]
