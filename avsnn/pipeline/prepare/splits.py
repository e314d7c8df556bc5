"""Assigns each clip to a part of a split: train, val, test, or no part."""

import re
from collections import Counter, defaultdict

from avsnn.datasets_manifest import Clip, Manifest
from avsnn.datasets_manifest.clips import NO_PART, PARTS
from avsnn.datasets_manifest.split_rules import (
    ColumnSplit,
    GroupShareSplit,
    GroupSplit,
    OrderSplit,
)
from avsnn.pipeline.formats.membership import hash_rank


def assign_parts(manifest: Manifest, split: str) -> dict[str, str]:
    """Return the part of every clip of the data set, ``{key: "train" | "val" | "test" | "none"}``.

    Where the publisher gave no validation part, the validation part is taken from train: the same
    share of each class. Which clips are taken is a pure function of their keys.
    """
    match manifest.splits[split]:
        case ColumnSplit() as rule:
            parts = {clip.key: _part_in_column(rule, clip) for clip in manifest.clips}
            owner = _shared_recording(manifest) if rule.whole_recordings else {}
            return _set_val_aside(manifest, parts, rule.val_fraction, owner)
        case OrderSplit() as rule:
            return _set_val_aside(manifest, _cut_by_order(manifest, rule), rule.val_fraction, {})
        case GroupSplit() as rule:
            return {clip.key: _part_of_group(rule, clip.group) for clip in manifest.clips}
        case GroupShareSplit() as rule:
            parts_of_groups = _share_out_groups(manifest, rule)
            return {clip.key: parts_of_groups[clip.group] for clip in manifest.clips}


def select(manifest: Manifest, limit: int | None) -> tuple[Clip, ...]:
    """Return ``limit`` clips; None returns all clips.

    The selection has the same share of every part and class as the whole data set.
    """
    if limit is None:
        return manifest.clips
    parts = assign_parts(manifest, manifest.default_split)
    # Clip i of n clips of a part and class has the rank (i + 0.5) / n. So every part and class is
    # spread evenly over the ranks, and the lowest ranks hold the same share of each.
    rank = {
        clip.key: ((i + 0.5) / len(clips), hash_rank(clip.key))
        for clips in _clips_by_part_and_class(manifest, parts).values()
        for i, clip in enumerate(clips)
    }
    return tuple(sorted(manifest.clips, key=lambda clip: rank[clip.key])[:limit])


def _clips_by_part_and_class(
    manifest: Manifest, parts: dict[str, str]
) -> dict[tuple[str, int], list[Clip]]:
    found: dict[tuple[str, int], list[Clip]] = defaultdict(list)
    for clip in sorted(manifest.clips, key=lambda clip: hash_rank(clip.key)):
        found[parts[clip.key], clip.label].append(clip)
    return found


def _part_in_column(rule: ColumnSplit, clip: Clip) -> str:
    if rule.keys is not None and not re.fullmatch(rule.keys, clip.key):
        return NO_PART
    return clip.columns[rule.column]


def _shared_recording(manifest: Manifest) -> dict[str, str]:
    """Return the recording of each clip that the most clips share, by the key of the clip."""
    recordings = {clip.key: [file.recording for file in clip.files] for clip in manifest.clips}
    uses = Counter(path for paths in recordings.values() for path in paths)
    return {key: max(paths, key=lambda path: uses[path]) for key, paths in recordings.items()}


def _set_val_aside(
    manifest: Manifest, parts: dict[str, str], fraction: float, owner: dict[str, str]
) -> dict[str, str]:
    """Return the parts with a share of the train part made val, class by class.

    Args:
        manifest: the facts about the data set.
        parts: the part of every clip, by key.
        fraction: the share of each class of the train part.
        owner: what clips have in common that must stay together, by key; empty where clips stand
            alone.
    """
    if not fraction:
        return parts
    changed = dict(parts)
    for (part, _), clips in _clips_by_part_and_class(manifest, parts).items():
        if part != "train":
            continue
        together: dict[str, list[str]] = defaultdict(list)
        for clip in clips:
            together[owner.get(clip.key, clip.key)].append(clip.key)
        wanted, taken = round(fraction * len(clips)), 0
        for keys in together.values():
            if taken + len(keys) > wanted:
                break
            changed |= dict.fromkeys(keys, "val")
            taken += len(keys)
    return changed


def _cut_by_order(manifest: Manifest, rule: OrderSplit) -> dict[str, str]:
    """Return the part of every clip: of each class, the first keys in order are train."""
    keys_of_class: dict[int, list[str]] = defaultdict(list)
    for clip in manifest.clips:
        keys_of_class[clip.label].append(clip.key)
    return {
        key: "train" if number < int(rule.first_train * len(keys)) else "test"
        for keys in keys_of_class.values()
        for number, key in enumerate(sorted(keys))
    }


def _part_of_group(rule: GroupSplit, group: str) -> str:
    if group in rule.test_groups:
        return "test"
    return "val" if group in rule.val_groups else "train"


def _share_out_groups(manifest: Manifest, rule: GroupShareSplit) -> dict[str, str]:
    """Return the part of every group, such that each part has its share of each class.

    The groups are placed one after the other, the largest first. Each group goes to the part that
    misses the clips of the group most, counted by class. If every group has a single class, then
    the number of clips of a class in a part differs from the part's share by at most twice the
    size of the largest group.
    """
    shares = {"train": 1 - rule.val_share - rule.test_share}
    shares |= {"val": rule.val_share, "test": rule.test_share}
    groups: dict[str, Counter[int]] = defaultdict(Counter)
    for clip in manifest.clips:
        groups[clip.group][clip.label] += 1
    class_sizes = Counter(clip.label for clip in manifest.clips)
    missing = {part: {c: shares[part] * n for c, n in class_sizes.items()} for part in PARTS}
    part_of_group = {}
    for group in sorted(groups, key=lambda group: (-groups[group].total(), hash_rank(group))):
        counts = groups[group].items()
        # Choose the part whose squared distance from its shares grows least with this group:
        # (missing - n)^2 - missing^2 = n (n - 2 missing), summed over the classes.
        part = part_of_group[group] = min(
            PARTS, key=lambda part: sum(n * (n - 2 * missing[part][c]) for c, n in counts)
        )
        for c, n in counts:
            missing[part][c] -= n
    return part_of_group
