"""What the parts of a split share, by the manifest and by the data on disk. Reads, never writes."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avsnn.datasets_manifest import Clip, Manifest
from avsnn.datasets_manifest.schema import PARTS
from avsnn.errors import UserError
from avsnn.pipeline.engine.stage import records
from avsnn.pipeline.formats.index import read_index
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.prepared import load_prepared
from avsnn.pipeline.prepare.build import build_stages
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.splits import assign_parts
from avsnn.pipeline.prepare.stages.discover import load_discovered

# What a part is measured on, and what the network has then seen, by training or by choice.
SEEN_BEFORE = {"val": ("train",), "test": ("train", "val")}


@dataclass(frozen=True)
class Shared:
    """What the clips of a part have in common with those seen before.

    Attributes:
        part: val or test.
        seen: the parts before it.
        groups: groups of the part that are there too; None where the data set has none.
        group_clips: clips of the part of such groups.
        twins: clips of the part with a twin there; None where the manifest knows no twins.
        identical: clips of the part with a file there that is the same, byte for byte.
    """

    part: str
    seen: tuple[str, ...]
    groups: int | None
    group_clips: int | None
    twins: int | None
    identical: int


@dataclass(frozen=True)
class PlacedClip:
    """A clip, its class, and its part in the split."""

    key: str
    label: str
    part: str


@dataclass(frozen=True)
class SplitCheck:
    """A split, taken apart.

    Attributes:
        dataset: its name.
        split: its name.
        group: what a group is.
        twins: what twins share; None where the manifest knows none.
        clips: by part and class.
        groups: how many, by part; None where the data set has none.
        shared: by part that is measured on.
        identical: sets of clips whose audio, or visual, is the same file, byte for byte.
        unchecked: files whose checksum is not known, since they were not fetched yet.
        known_bad: clips that the publisher or others found bad, with the reason.
        prepared: clips that are prepared here, by part; None where the data set is not.
        disagreeing: clips that are prepared here under another part, class or group.
    """

    dataset: str
    split: str
    group: str
    twins: str | None
    clips: dict[str, dict[str, int]]
    groups: dict[str, int] | None
    shared: list[Shared]
    identical: list[tuple[str, list[PlacedClip]]]
    unchecked: int
    known_bad: list[tuple[PlacedClip, str]]
    prepared: dict[str, int] | None
    disagreeing: int


def check_split(dataset: str, split: str | None, *, root: Path) -> SplitCheck:
    """Takes a split apart; None takes the data set's default.

    Raises:
        UserError: there is no such data set or split, or its clips are not discovered yet.
    """
    manifest = load_discovered(dataset, root)
    name = split or manifest.default_split
    if name not in manifest.splits:
        raise UserError(
            f"{dataset} has no split {name!r}; there are: {', '.join(manifest.splits)}."
        )
    if not manifest.clips:
        raise UserError(
            f"the clips of {dataset} are not known before its files are found; "
            f"run 'avsnn prepare {dataset} --root {root}' first."
        )
    parts = assign_parts(manifest, name)
    members = {part: [clip for clip in manifest.clips if parts[clip.key] == part] for part in PARTS}
    groups = {part: len({clip.group for clip in clips}) for part, clips in members.items()}
    digests = _digests(manifest, root)
    placed = {
        clip.key: PlacedClip(clip.key, manifest.classes[clip.label], parts[clip.key])
        for clip in manifest.clips
    }
    prepared, disagreeing = _on_disk(manifest, name, placed, root)
    return SplitCheck(
        dataset=dataset,
        split=name,
        group=manifest.group,
        twins=manifest.twins.what if manifest.twins else None,
        clips={
            part: _by_class(manifest, [clip.label for clip in clips])
            for part, clips in members.items()
        },
        groups=groups if _has_groups(manifest) else None,
        shared=[_share(manifest, part, members, digests) for part in SEEN_BEFORE],
        identical=_identical(manifest, placed, digests),
        unchecked=sum(file.path not in digests for clip in manifest.clips for file in clip.files),
        known_bad=[(placed[key], why) for key, why in manifest.known_bad.items()],
        prepared=prepared,
        disagreeing=disagreeing,
    )


def _by_class(manifest: Manifest, labels: list[int]) -> dict[str, int]:
    return {name: labels.count(label) for label, name in enumerate(manifest.classes)}


def _has_groups(manifest: Manifest) -> bool:
    return manifest.group != "none"


def _digests(manifest: Manifest, root: Path) -> dict[str, str]:
    """SHA-256 by path: as published, or of what was fetched."""
    files = [file for clip in manifest.clips for file in clip.files]
    digests = {file.path: file.sha256 for file in files if file.sha256}
    if len(digests) < len(files):
        fetch = build_stages(
            manifest.name, PrepareRequest(settings=PrepareSettings()), root=root
        ).fetch
        for record in records(fetch).values():
            digests = {output.path: output.sha256 for output in record.outputs} | digests
    return digests


def _share(
    manifest: Manifest, part: str, members: dict[str, list[Clip]], digests: dict[str, str]
) -> Shared:
    seen = SEEN_BEFORE[part]
    before = [clip for other in seen for clip in members[other]]

    def count(traits: Callable[[Clip], set[str]]) -> int:
        """Clips of the part with a trait that a clip seen before has."""
        known = set[str]().union(*map(traits, before))
        return sum(not known.isdisjoint(traits(clip)) for clip in members[part])

    pattern = re.compile(manifest.twins.pattern) if manifest.twins else None
    groups = {clip.group for clip in members[part]} & {clip.group for clip in before}
    grouped = _has_groups(manifest)
    return Shared(
        part=part,
        seen=seen,
        groups=len(groups) if grouped else None,
        group_clips=count(lambda clip: {clip.group}) if grouped else None,
        twins=count(lambda clip: set(pattern.findall(clip.key)[:1])) if pattern else None,
        identical=count(
            lambda clip: {digests[file.path] for file in clip.files if file.path in digests}
        ),
    )


def _identical(
    manifest: Manifest, placed: dict[str, PlacedClip], digests: dict[str, str]
) -> list[tuple[str, list[PlacedClip]]]:
    same: dict[tuple[str, str], list[PlacedClip]] = defaultdict(list)
    for clip in manifest.clips:
        for kind, file in (("audio", clip.audio), ("visual", clip.visual)):
            if file.path in digests:
                same[kind, digests[file.path]].append(placed[clip.key])
    return [(kind, clips) for (kind, _), clips in same.items() if len(clips) > 1]


def _on_disk(
    manifest: Manifest, split: str, placed: dict[str, PlacedClip], root: Path
) -> tuple[dict[str, int] | None, int]:
    prepared = load_prepared(root, manifest.name)
    if prepared is None:
        return None, 0
    folder = root / manifest.name
    lines = (folder / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    failed = {json.loads(line)["key"] for line in lines}
    rows = [row for row in read_index(folder / prepared.index) if row.key not in failed]
    groups = {clip.key: clip.group for clip in manifest.clips}
    ready = Counter(row.splits[split] for row in rows)
    return {part: ready[part] for part in PARTS}, sum(
        placed.get(row.key) != PlacedClip(row.key, row.label_name, row.splits[split])
        or row.group != groups[row.key]
        for row in rows
    )
