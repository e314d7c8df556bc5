"""Checks a split: what do its parts share, and do the prepared data agree? Reads, never writes."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.datasets_manifest import Manifest
from avsnn.datasets_manifest.clips import PART_OF_CODE, PARTS
from avsnn.datasets_manifest.text_columns import TextSearch, texts_of
from avsnn.errors import UserError
from avsnn.pipeline.formats.clip_index import open_index
from avsnn.pipeline.formats.membership import hash_order, key_hashes
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.prepared_json import load_prepared
from avsnn.pipeline.prepare.build_stages import build_stages, load_with_clips
from avsnn.pipeline.prepare.described_clips import AT_ONCE
from avsnn.pipeline.prepare.final_files import read_failures
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.splits import Parts, assign_parts
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
    parts, clips = assign_parts(manifest, name), manifest.clips
    groups, _ = TextSearch.of(clips.groups).distinct()
    contents = _contents(manifest, root)
    traits = _Traits(groups[:, None], _twins(manifest), contents)
    bad = [*zip(clips.find([*manifest.known_bad]), manifest.known_bad.values(), strict=True)]
    prepared, disagreeing = _compare_with_prepared(manifest, name, parts, root)
    return SplitCheck(
        dataset=dataset,
        split=name,
        group=manifest.group,
        twins=manifest.twins.what if manifest.twins else None,
        clips={
            part: _count_by_class(manifest, clips.labels[parts == code])
            for code, part in enumerate(PARTS)
        },
        groups={part: len(np.unique(groups[parts == code])) for code, part in enumerate(PARTS)}
        if _has_groups(manifest)
        else None,
        shared=[_find_shared(manifest, part, parts, traits) for part in SEEN_BEFORE],
        identical=_find_identical(manifest, parts, contents),
        unchecked=int((contents < 0).sum()),
        known_bad=[(_placed(manifest, parts, row), why) for row, why in bad if row >= 0],
        prepared=prepared,
        disagreeing=disagreeing,
    )


def _count_by_class(manifest: Manifest, labels: NDArray[np.int32]) -> dict[str, int]:
    counts = np.bincount(labels, minlength=len(manifest.classes)).tolist()
    return dict(zip(manifest.classes, counts, strict=True))


def _has_groups(manifest: Manifest) -> bool:
    return manifest.group != "none"


def _placed(manifest: Manifest, parts: Parts, row: int) -> PlacedClip:
    """Return the clip of a row with its place in the split."""
    clips = manifest.clips
    label = manifest.classes[clips.labels[row]]
    return PlacedClip(clips.keys[row], label, PART_OF_CODE[parts[row]])


class _Traits(NamedTuple):
    """What clips may have in common, each as numbers ``[N, ...]``; -1 is no trait.

    Attributes:
        groups: the group.
        twins: what the rule for twins finds in the key.
        contents: the content of the audio file and of the visual file.
    """

    groups: NDArray[np.int64]
    twins: NDArray[np.int64]
    contents: NDArray[np.int64]


def _twins(manifest: Manifest) -> NDArray[np.int64]:
    """Return a number for what the rule for twins finds in each key, ``[N, 1]``; -1 for nothing."""
    count = len(manifest.clips)
    if manifest.twins is None:
        return np.full((count, 1), -1)
    found = map(re.compile(manifest.twins.pattern).search, manifest.clips.keys)
    # A pattern with groups finds what its groups match.
    texts = texts_of("\0".join(one.groups("") or [one[0]]) if one else "\0\0" for one in found)
    numbers, _ = TextSearch.of(texts).distinct()
    return np.where(texts == "\0\0", -1, numbers)[:, None]


def _contents(manifest: Manifest, root: Path) -> NDArray[np.int64]:
    """Return a number for the content of each file of the clips, ``[N, 2]``; -1 if not known.

    Files of one SHA-256 have one number. The SHA-256 is the published one, or that of the fetched
    file. A file of many recordings has one checksum, so a recording there is known by its path.
    """
    clips = manifest.clips
    sides = (clips.audio, clips.visual)
    # The first 128 bits of a SHA-256 tell files apart.
    digests = np.zeros((len(clips), 2, 16), np.uint8)
    is_known = np.stack([files.has_sha256 for files in sides], axis=1)
    for side, files in enumerate(sides):
        if files.sha256 is not None:
            digests[:, side] = files.sha256[:, :16]
    is_member = np.zeros_like(is_known)
    for side, files in enumerate(sides):
        if files.members is not None:
            is_member[:, side] = files.members != ""
    if not (is_known | is_member).all() and not manifest.pairs:
        request = PrepareRequest(settings=PrepareSettings())
        stages = build_stages(manifest.name, request, root=root, brings_files=False)
        facts = stages.index.clips
        is_fetched = (facts.sizes >= 0)[facts.files] & ~is_known
        digests[is_fetched] = facts.sha256[facts.files[is_fetched], :16]
        is_known |= is_fetched
    for side, files in enumerate(sides):
        for row in np.flatnonzero(is_member[:, side]).tolist():
            (recording,) = files.recordings(slice(row, row + 1))
            digests[row, side] = key_hashes([recording]).view(np.uint8)
    is_known |= is_member
    words = digests[is_known].view(np.uint64)
    order = hash_order(words)
    is_new = (np.diff(words[order], axis=0, prepend=0) != 0).any(axis=1)
    found = np.empty(len(order), np.int64)
    found[order] = np.cumsum(is_new)
    numbers = np.full(is_known.shape, -1)
    numbers[is_known] = found
    return numbers


def _find_shared(manifest: Manifest, part: str, parts: Parts, traits: _Traits) -> Shared:
    """Return what a part shares with the parts seen before.

    Args:
        manifest: the facts about the data set.
        part: the part, val or test.
        parts: the part of every clip.
        traits: what clips may have in common.
    """
    seen = SEEN_BEFORE[part]
    of_part = parts == PART_OF_CODE.index(part)
    before = np.isin(parts, [PART_OF_CODE.index(other) for other in seen])

    def sharing(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether each clip of the part has a trait of a clip seen before."""
        # The last place stands for -1, which is no trait.
        is_known = np.zeros(numbers.max(initial=-1) + 2, np.bool_)
        is_known[numbers[before]] = True
        is_known[-1] = False
        shares: NDArray[np.bool_] = is_known[numbers[of_part]].any(axis=1)
        return shares

    shares_group = sharing(traits.groups)
    has_groups = _has_groups(manifest)
    groups = len(np.unique(traits.groups[of_part][shares_group]))
    return Shared(
        part=part,
        seen=seen,
        groups=groups if has_groups else None,
        group_clips=int(shares_group.sum()) if has_groups else None,
        twins=int(sharing(traits.twins).sum()) if manifest.twins else None,
        identical=int(sharing(traits.contents).sum()),
    )


def _find_identical(
    manifest: Manifest, parts: Parts, contents: NDArray[np.int64]
) -> list[tuple[str, list[PlacedClip]]]:
    """Return sets of clips with an identical file, each with the kind of the file."""
    # Files of one content and one kind have one number; files of unknown content stand alone.
    numbers = np.where(contents < 0, -1, 2 * contents + [0, 1]).reshape(-1)
    places = np.argsort(numbers, kind="stable")
    places = places[numbers[places] >= 0]
    places = places[np.bincount(numbers[places])[numbers[places]] > 1]
    sets = np.split(places, np.flatnonzero(np.diff(numbers[places])) + 1)
    return [
        (
            ("audio", "visual")[int(found[0]) % 2],
            [_placed(manifest, parts, row) for row in (found // 2).tolist()],
        )
        for found in sorted((found for found in sets if len(found)), key=lambda one: int(one[0]))
    ]


def _compare_with_prepared(
    manifest: Manifest, split: str, parts: Parts, root: Path
) -> tuple[dict[str, int] | None, int]:
    """Return how many clips are prepared, by part, and how many disagree with the manifest."""
    prepared = load_prepared(root, manifest.name)
    if prepared is None:
        return None, 0
    folder, clips = root / manifest.name, manifest.clips
    index = open_index(folder / prepared.index)
    is_ready = np.ones(len(index), np.bool_)
    failed = index.find(read_failures(folder))
    is_ready[failed[failed >= 0]] = False
    codes = index.parts.get(split, np.full(len(index), len(PART_OF_CODE)))
    counts = {part: int((codes[is_ready] == code).sum()) for code, part in enumerate(PARTS)}
    rows = np.concatenate(
        [
            clips.find(index.keys[first : first + AT_ONCE].tolist())
            for first in range(0, len(index) + 1, AT_ONCE)
        ]
    )
    classes = texts_of(manifest.classes)[clips.labels[rows]]
    agrees = (
        (rows >= 0)
        & (classes == texts_of(index.label_names)[index.labels])
        & (codes == parts[rows])
        & (index.groups == clips.groups[rows])
    )
    return counts, int((is_ready & ~agrees).sum())
