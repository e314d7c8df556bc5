"""Which part of a split each clip belongs to."""

import hashlib
from collections import Counter, defaultdict

from avsnn.datasets_manifest import Clip, Manifest
from avsnn.datasets_manifest.schema import (
    PARTS,
    ColumnSplit,
    GroupShareSplit,
    GroupSplit,
    OrderSplit,
)


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
        clip.key: ((i + 0.5) / len(clips), hash_rank(clip.key))
        for clips in _strata(manifest, parts).values()
        for i, clip in enumerate(clips)
    }
    return tuple(sorted(manifest.clips, key=lambda clip: place[clip.key])[:limit])


def _strata(manifest: Manifest, parts: dict[str, str]) -> dict[tuple[str, int], list[Clip]]:
    strata: dict[tuple[str, int], list[Clip]] = defaultdict(list)
    for clip in sorted(manifest.clips, key=lambda clip: hash_rank(clip.key)):
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
    for group in sorted(groups, key=lambda group: (-groups[group].total(), hash_rank(group))):
        labels = groups[group].items()
        # Of the parts, the one whose distance from its shares, in squares, grows least.
        part = dealt[group] = min(
            PARTS, key=lambda part: sum(n * (n - 2 * missing[part][c]) for c, n in labels)
        )
        for c, n in labels:
            missing[part][c] -= n
    return dealt


def hash_rank(key: str) -> str:
    """An order without meaning: reproducible, the same wherever and whenever it is computed."""
    return hashlib.sha256(key.encode()).hexdigest()
