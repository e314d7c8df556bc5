"""2. One row per clip: key, label, its part in every split, where its media are."""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from avsnn.datasets_manifest import Clip, Manifest
from avsnn.datasets_manifest.schema import ColumnSplit, GroupSplit
from avsnn.pipeline.fetch import Fetch
from avsnn.pipeline.stage import Outcome, Stage, Unit, records


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


@dataclass(frozen=True)
class Index(Stage):
    """A single unit. Clips with a file that fetch could not bring are skipped, and counted."""

    name: ClassVar[str] = "index"
    version: ClassVar[int] = 1

    folder: Path
    state: Path
    manifest: Manifest
    fetch: Fetch

    def settings(self) -> dict[str, Any]:
        """The splits, since every row names its parts."""
        return {split: rule.model_dump() for split, rule in self.manifest.splits.items()}

    def units(self) -> list[Unit]:
        """The table as a whole."""
        brought = records(self.fetch)

        def digest(path: str) -> str | None:
            record = brought.get(path)
            return record.outputs[0].sha256 if record and record.outputs else None

        inputs = {
            clip.key: {file.path: digest(file.path) for file in clip.files}
            for clip in self.fetch.clips
        }
        return [Unit(name="clips", outputs=("clips.jsonl",), inputs=inputs)]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Writes ``clips.jsonl``, in an order that mixes classes."""
        parts = {name: assign_parts(self.manifest, name) for name in self.manifest.splits}
        default = parts[self.manifest.default_split]
        positions: dict[str, int] = defaultdict(int)
        rows, skipped = [], 0
        for clip in sorted(self.fetch.clips, key=lambda clip: _rank(clip.key)):
            part = default[clip.key]
            position = positions[part]
            positions[part] += 1
            digests: dict[str, str | None] = unit.inputs[clip.key]
            if None in digests.values():
                skipped += 1
                continue
            row = IndexRow(
                key=clip.key,
                label=clip.label,
                label_name=self.manifest.classes[clip.label],
                group=clip.group,
                part=part,
                position=position,
                splits={split: table[clip.key] for split, table in parts.items()},
                audio=clip.audio.path,
                visual=clip.visual.path,
                sha256={path: digest for path, digest in digests.items() if digest},
            )
            rows.append(row.model_dump_json())
        (scratch / "clips.jsonl").write_text("".join(row + "\n" for row in rows), encoding="utf-8")
        return Outcome(written=len(rows), skipped=skipped)


def read_index(folder: Path) -> list[IndexRow]:
    """The rows of ``clips.jsonl``; none where it was not written yet."""
    path = folder / "clips.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [IndexRow.model_validate(json.loads(line)) for line in lines]


def assign_parts(manifest: Manifest, split: str) -> dict[str, str]:
    """The part of every clip of the data set, ``{key: "train" | "val" | "test"}``.

    A validation part that the publisher did not give is carved from train, the same share of each
    class; which clips, is a pure function of their keys.
    """
    rule = manifest.splits[split]
    if isinstance(rule, GroupSplit):
        return {clip.key: _part_of_group(rule, clip.group) for clip in manifest.clips}
    parts = {clip.key: clip.columns[rule.column] for clip in manifest.clips}
    for clips in _strata(manifest, parts).values():
        if parts[clips[0].key] == "train":
            for clip in clips[: _carved(rule, len(clips))]:
                parts[clip.key] = "val"
    return parts


def select(manifest: Manifest, limit: int | None) -> tuple[Clip, ...]:
    """``limit`` clips with the same share of every part and class as the whole; None takes all."""
    if limit is None:
        return manifest.clips
    parts = assign_parts(manifest, manifest.default_split)
    place = {
        clip.key: ((i + 0.5) / len(clips), _rank(clip.key))
        for clips in _strata(manifest, parts).values()
        for i, clip in enumerate(clips)
    }
    return tuple(sorted(manifest.clips, key=lambda clip: place[clip.key])[:limit])


def _strata(manifest: Manifest, parts: dict[str, str]) -> dict[tuple[str, int], list[Clip]]:
    strata: dict[tuple[str, int], list[Clip]] = defaultdict(list)
    for clip in sorted(manifest.clips, key=lambda clip: _rank(clip.key)):
        strata[parts[clip.key], clip.label].append(clip)
    return strata


def _part_of_group(rule: GroupSplit, group: str) -> str:
    if group in rule.test_groups:
        return "test"
    return "val" if group in rule.val_groups else "train"


def _carved(rule: ColumnSplit, clips: int) -> int:
    return round(rule.val_fraction * clips)


def _rank(key: str) -> str:
    """An order without meaning: reproducible, the same wherever and whenever it is computed."""
    return hashlib.sha256(key.encode()).hexdigest()
