"""Checks a split: what do its parts share, and do the prepared data agree? Reads, never writes."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avsnn.datasets_manifest import Clip, Manifest
from avsnn.datasets_manifest.clips import PARTS
from avsnn.errors import UserError
from avsnn.pipeline.engine.stage import records
from avsnn.pipeline.formats.clips_jsonl import read_index
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.prepared_json import load_prepared
from avsnn.pipeline.prepare.build_stages import build_stages, load_with_clips
from avsnn.pipeline.prepare.final_files import read_failures
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.splits import assign_parts
from avsnn.suggestions import did_you_mean, there_are

# The parts that a network is measured on, each with the parts that the network has seen before:
# train by training, val by the choice of the epoch.
SEEN_BEFORE = {"val": ("train",), "test": ("train", "val")}


@dataclass(frozen=True)
class PlacedClip:
    """A clip with its place in the split.

    Attributes:
        key: key of the clip.
        label: name of the class.
        part: part of the split.
    """

    key: str
    label: str
    part: str


@dataclass(frozen=True)
class Shared:
    """What the clips of one part have in common with the clips of the parts seen before.

    Attributes:
        part: the part, val or test.
        seen: the parts seen before this part.
        groups: number of groups of this part that are also in the parts seen before; None where
            the data set has no groups.
        group_clips: number of clips of this part that belong to these groups; None where the data
            set has no groups.
        twins: number of clips of this part with a twin in the parts seen before; None where the
            manifest has no rule for twins.
        identical: number of clips of this part with a file that is identical, byte for byte, to a
            file in the parts seen before.
    """

    part: str
    seen: tuple[str, ...]
    groups: int | None
    group_clips: int | None
    twins: int | None
    identical: int


@dataclass(frozen=True)
class SplitCheck:
    """The result of a check of a split.

    Attributes:
        dataset: name of the data set.
        split: name of the split.
        group: what a group is, such as a speaker.
        twins: what twins have in common; None where the manifest has no rule for twins.
        clips: number of clips, by part and class.
        groups: number of groups, by part; None where the data set has no groups.
        shared: what val and test share with the parts seen before.
        identical: sets of clips with an identical file, byte for byte, each with the kind of the
            file, ``audio`` or ``visual``.
        unchecked: number of files whose checksum is not known, because nobody published the
            checksum and the file was not fetched yet.
        known_bad: clips that are known to be bad, each with the reason.
        prepared: number of clips that are prepared here, by part; None where the data set is not
            prepared here.
        disagreeing: number of clips that are prepared here with another part, class or group.
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
    """Check a split of a data set.

    Args:
        dataset: name of the data set.
        split: name of the split; None takes the default split of the data set.
        root: folder that holds the data sets.

    Raises:
        UserError: there is no such data set or split, or the clips are not discovered yet.
    """
    manifest = load_with_clips(dataset, root)
    name = split or manifest.default_split
    if name not in manifest.splits:
        raise UserError(
            f"{dataset} has no split {name!r}; {did_you_mean(name, manifest.splits)}"
            f"{there_are(name, manifest.splits)}."
        )
    if not manifest.clips:
        raise UserError(
            f"the clips of {dataset} are not known before its files are found; "
            f"run 'avsnn prepare {dataset} --root {root}' first."
        )
    parts = assign_parts(manifest, name)
    members = {part: [clip for clip in manifest.clips if parts[clip.key] == part] for part in PARTS}
    groups = {part: len({clip.group for clip in clips}) for part, clips in members.items()}
    digests = _known_digests(manifest, root)
    placed = {
        clip.key: PlacedClip(clip.key, manifest.classes[clip.label], parts[clip.key])
        for clip in manifest.clips
    }
    prepared, disagreeing = _compare_with_prepared(manifest, name, placed, root)
    return SplitCheck(
        dataset=dataset,
        split=name,
        group=manifest.group,
        twins=manifest.twins.what if manifest.twins else None,
        clips={
            part: _count_by_class(manifest, [clip.label for clip in clips])
            for part, clips in members.items()
        },
        groups=groups if _has_groups(manifest) else None,
        shared=[_find_shared(manifest, part, members, digests) for part in SEEN_BEFORE],
        identical=_find_identical(manifest, placed, digests),
        unchecked=sum(
            file.recording not in digests for clip in manifest.clips for file in clip.files
        ),
        known_bad=[(placed[key], why) for key, why in manifest.known_bad.items() if key in placed],
        prepared=prepared,
        disagreeing=disagreeing,
    )


def _count_by_class(manifest: Manifest, labels: list[int]) -> dict[str, int]:
    return {name: labels.count(label) for label, name in enumerate(manifest.classes)}


def _has_groups(manifest: Manifest) -> bool:
    return manifest.group != "none"


def _known_digests(manifest: Manifest, root: Path) -> dict[str, str]:
    """Return SHA-256 by path: the published SHA-256, or the SHA-256 of the fetched file."""
    files = [file for clip in manifest.clips for file in clip.files]
    # A file of many recordings has one checksum, so a recording there is known by its path.
    digests = {file.recording: file.recording for file in files if file.member}
    digests |= {file.path: file.sha256 for file in files if file.sha256 and not file.member}
    if len(digests) < len(files) and not manifest.pairs:
        request = PrepareRequest(settings=PrepareSettings())
        fetch = build_stages(manifest.name, request, root=root, brings_files=False).fetch
        for record in records(fetch).values():
            digests = {output.path: output.sha256 for output in record.outputs} | digests
    return digests


def _find_shared(
    manifest: Manifest, part: str, members: dict[str, list[Clip]], digests: dict[str, str]
) -> Shared:
    """Return what a part shares with the parts seen before.

    Args:
        manifest: the facts about the data set.
        part: the part, val or test.
        members: the clips of every part.
        digests: SHA-256 of the files, by path.
    """
    seen = SEEN_BEFORE[part]
    clips_before = [clip for other in seen for clip in members[other]]

    def count_sharing(traits: Callable[[Clip], set[str]]) -> int:
        """Count the clips of the part that have a trait of a clip seen before."""
        known = set[str]().union(*map(traits, clips_before))
        return sum(not known.isdisjoint(traits(clip)) for clip in members[part])

    def twin_text(clip: Clip) -> set[str]:
        return set(re.findall(manifest.twins.pattern, clip.key)[:1]) if manifest.twins else set()

    def digests_of(clip: Clip) -> set[str]:
        return {digests[file.recording] for file in clip.files if file.recording in digests}

    groups = {clip.group for clip in members[part]} & {clip.group for clip in clips_before}
    has_groups = _has_groups(manifest)
    return Shared(
        part=part,
        seen=seen,
        groups=len(groups) if has_groups else None,
        group_clips=count_sharing(lambda clip: {clip.group}) if has_groups else None,
        twins=count_sharing(twin_text) if manifest.twins else None,
        identical=count_sharing(digests_of),
    )


def _find_identical(
    manifest: Manifest, placed: dict[str, PlacedClip], digests: dict[str, str]
) -> list[tuple[str, list[PlacedClip]]]:
    """Return sets of clips with an identical file, each with the kind of the file."""
    clips_of_content: dict[tuple[str, str], list[PlacedClip]] = defaultdict(list)
    for clip in manifest.clips:
        for kind, file in (("audio", clip.audio), ("visual", clip.visual)):
            if file.recording in digests:
                clips_of_content[kind, digests[file.recording]].append(placed[clip.key])
    return [(kind, clips) for (kind, _), clips in clips_of_content.items() if len(clips) > 1]


def _compare_with_prepared(
    manifest: Manifest, split: str, placed: dict[str, PlacedClip], root: Path
) -> tuple[dict[str, int] | None, int]:
    """Return how many clips are prepared, by part, and how many disagree with the manifest."""
    prepared = load_prepared(root, manifest.name)
    if prepared is None:
        return None, 0
    folder = root / manifest.name
    failed = read_failures(folder)
    rows = [row for row in read_index(folder / prepared.index) if row.key not in failed]
    groups = {clip.key: clip.group for clip in manifest.clips}
    counts = Counter(row.splits.get(split, "") for row in rows)
    disagreeing = sum(
        placed.get(row.key) != PlacedClip(row.key, row.label_name, row.splits.get(split, ""))
        or row.group != groups.get(row.key)
        for row in rows
    )
    return {part: counts[part] for part in PARTS}, disagreeing
