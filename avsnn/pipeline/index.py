"""2. One row per clip: key, label, its part in every split, where its media are."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from avsnn.datasets_manifest import Clip, Manifest
from avsnn.datasets_manifest.schema import (
    PARTS,
    ColumnSplit,
    GroupShareSplit,
    GroupSplit,
    OrderSplit,
)
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
    return [IndexRow.model_validate_json(line) for line in path.read_bytes().splitlines()]


def assign_parts(manifest: Manifest, split: str) -> dict[str, str]:
    """The part of every clip of the data set, ``{key: "train" | "val" | "test"}``.

    A validation part that the publisher did not give is carved from train, the same share of each
    class; which clips, is a pure function of their keys.
    """
    match manifest.splits[split]:
        case ColumnSplit() as rule:
            parts = {clip.key: clip.columns[rule.column] for clip in manifest.clips}
            return _carve(manifest, parts, rule.val_fraction)
        case OrderSplit() as rule:
            return _carve(manifest, _cut_by_order(manifest, rule), rule.val_fraction)
        case GroupSplit() as rule:
            return {clip.key: _part_of_group(rule, clip.group) for clip in manifest.clips}
        case GroupShareSplit() as rule:
            dealt = _deal_groups(manifest, rule)
            return {clip.key: dealt[clip.group] for clip in manifest.clips}


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


def _carve(manifest: Manifest, parts: dict[str, str], fraction: float) -> dict[str, str]:
    """The same parts, with that share of train made val, class by class."""
    if not fraction:
        return parts
    carved = dict(parts)
    for (part, _), clips in _strata(manifest, parts).items():
        if part == "train":
            carved |= {clip.key: "val" for clip in clips[: round(fraction * len(clips))]}
    return carved


def _cut_by_order(manifest: Manifest, rule: OrderSplit) -> dict[str, str]:
    classes: dict[int, list[str]] = defaultdict(list)
    for clip in manifest.clips:
        classes[clip.label].append(clip.key)
    return {
        key: "train" if place < int(rule.first_train * len(keys)) else "test"
        for keys in classes.values()
        for place, key in enumerate(sorted(keys))
    }


def _part_of_group(rule: GroupSplit, group: str) -> str:
    if group in rule.test_groups:
        return "test"
    return "val" if group in rule.val_groups else "train"


def _deal_groups(manifest: Manifest, rule: GroupShareSplit) -> dict[str, str]:
    """The part of every group: the largest are dealt first, each to where it is missed most.

    What is missed is counted by class. With groups of a single class, no part ends further from
    its share of a class than twice the largest group.
    """
    shares = {"train": 1 - rule.val_share - rule.test_share}
    shares |= {"val": rule.val_share, "test": rule.test_share}
    groups: dict[str, Counter[int]] = defaultdict(Counter)
    for clip in manifest.clips:
        groups[clip.group][clip.label] += 1
    sizes = Counter(clip.label for clip in manifest.clips)
    missing = {part: {c: shares[part] * n for c, n in sizes.items()} for part in PARTS}
    dealt = {}
    for group in sorted(groups, key=lambda group: (-groups[group].total(), _rank(group))):
        labels = groups[group].items()
        # Of the parts, the one whose distance from its shares, in squares, grows least.
        part = dealt[group] = min(
            PARTS, key=lambda part: sum(n * (n - 2 * missing[part][c]) for c, n in labels)
        )
        for c, n in labels:
            missing[part][c] -= n
    return dealt


def _rank(key: str) -> str:
    """An order without meaning: reproducible, the same wherever and whenever it is computed."""
    return hashlib.sha256(key.encode()).hexdigest()
