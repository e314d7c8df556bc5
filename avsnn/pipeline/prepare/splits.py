"""Assigns each clip to a part of a split: train, val, test, or no part."""

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from avsnn.datasets_manifest import Manifest
from avsnn.datasets_manifest.clip_table import ClipTable
from avsnn.datasets_manifest.clips import NO_PART, PART_OF_CODE, PARTS
from avsnn.datasets_manifest.split_rules import (
    ColumnSplit,
    GroupShareSplit,
    GroupSplit,
    OrderSplit,
)
from avsnn.datasets_manifest.text_columns import TextSearch, texts_of
from avsnn.pipeline.formats.membership import hash_order, key_hashes

# Parts of clips, `uint8 [N]`; a part is its index in `PART_OF_CODE`.
Parts = NDArray[np.uint8]

TRAIN, VAL, TEST, NONE = map(PART_OF_CODE.index, (*PARTS, NO_PART))


def assign_parts(manifest: Manifest, split: str) -> Parts:
    """Return the part of every clip of the data set, as an index in `PART_OF_CODE`, ``[N]``.

    Where the publisher gave no validation part, the validation part is taken from train: the same
    share of each class. Which clips are taken is a pure function of their keys.
    """
    clips = manifest.clips
    match manifest.splits[split]:
        case ColumnSplit() as rule:
            parts = clips.parts[rule.column] if clips else np.empty(0, np.uint8)
            if rule.keys is not None:
                fits = re.compile(rule.keys).fullmatch
                is_part = np.fromiter((bool(fits(key)) for key in clips.keys), bool, len(clips))
                parts = np.where(is_part, parts, np.uint8(NONE))
            owners = _shared_recordings(clips) if rule.whole_recordings else None
            return _set_val_aside(clips, parts, rule.val_fraction, owners)
        case OrderSplit() as rule:
            return _set_val_aside(clips, _cut_by_order(clips, rule), rule.val_fraction, None)
        case GroupSplit() as rule:
            return _choose_groups(clips, rule)
        case GroupShareSplit() as rule:
            return _share_out_groups(clips, rule)


@lru_cache(maxsize=1)
def hashes_of(clips: ClipTable) -> NDArray[np.uint64]:
    """Return the hash of the key of every clip, ``[N, 2]``, computed once for the same table."""
    return key_hashes(clips.keys)


def select(manifest: Manifest, limit: int | None) -> ClipTable:
    """Return ``limit`` clips; None returns all clips.

    The selection has the same share of every part and class as the whole data set. Where archives
    hold the clips, the selection takes the clips of one archive after the other, because each
    archive is fetched whole.
    """
    clips = manifest.clips
    if limit is None:
        return clips
    parts = assign_parts(manifest, manifest.default_split)
    hashes = hashes_of(clips)
    order = hash_order(hashes)
    if manifest.archives:
        order = order[np.argsort(clips.visual.paths[order], kind="stable")]
    rank = np.empty(len(clips))
    # Clip i of n clips of a part and class has the rank (i + 0.5) / n. So every part and class is
    # spread evenly over the ranks, and the lowest ranks hold the same share of each.
    for rows in _by_part_and_class(clips, parts, order):
        rank[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return clips.take(np.lexsort((hashes[:, 1], hashes[:, 0], rank))[:limit])


def _by_part_and_class(
    clips: ClipTable, parts: Parts, order: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Return the rows of every part and class, each in the given order."""
    return _rows_by_value(parts * np.int64(clips.labels.max(initial=0) + 1) + clips.labels, order)


def _rows_by_value(
    values: NDArray[np.integer], order: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Return the rows of each value, the lowest value first, with the rows in the given order."""
    rows = order[np.argsort(values[order], kind="stable")]
    starts = np.flatnonzero(np.diff(values[rows])) + 1
    return np.split(rows, starts) if len(rows) else []


def _shared_recordings(clips: ClipTable) -> NDArray[np.int64]:
    """Return a number for each clip: that of its recording that the most clips share."""
    every = slice(None)
    audio, visual = (files.recordings(every) for files in (clips.audio, clips.visual))
    numbers, _ = TextSearch.of(texts_of([*audio, *visual])).distinct()
    heard, seen = numbers[: len(clips)], numbers[len(clips) :]
    uses = np.bincount(numbers)
    return np.where(uses[heard] >= uses[seen], heard, seen)


def _set_val_aside(
    clips: ClipTable, parts: Parts, fraction: float, owners: NDArray[np.int64] | None
) -> Parts:
    """Return the parts with a share of the train part made val, class by class.

    Args:
        clips: the clips.
        parts: the part of every clip.
        fraction: the share of each class of the train part.
        owners: number of what clips have in common that must stay together; None where clips stand
            alone.
    """
    if not fraction:
        return parts
    changed = parts.copy()
    order = hash_order(hashes_of(clips))
    for rows in _by_part_and_class(clips, parts, order):
        if parts[rows[0]] != TRAIN:
            continue
        wanted = round(fraction * len(rows))
        if owners is not None:
            # Owners are taken in the order of their first clips, as long as all their clips fit.
            _, first, owner, sizes = np.unique(
                owners[rows], return_index=True, return_inverse=True, return_counts=True
            )
            in_order = np.argsort(first)
            taken = in_order[np.cumsum(sizes[in_order]) <= wanted]
            changed[rows[np.isin(owner, taken)]] = VAL
        else:
            changed[rows[:wanted]] = VAL
    return changed


def _cut_by_order(clips: ClipTable, rule: OrderSplit) -> Parts:
    """Return the part of every clip: of each class, the first keys in order are train."""
    parts = np.full(len(clips), TEST, np.uint8)
    for rows in _rows_by_value(clips.labels, np.argsort(clips.keys, kind="stable")):
        parts[rows[: int(rule.first_train * len(rows))]] = TRAIN
    return parts


def _choose_groups(clips: ClipTable, rule: GroupSplit) -> Parts:
    """Return the part of every clip: the rule names the groups of test and of val."""
    number, first = TextSearch.of(clips.groups).distinct()
    test, val = set(rule.test_groups), set(rule.val_groups)
    parts = [
        TEST if group in test else VAL if group in val else TRAIN for group in clips.groups[first]
    ]
    return np.array(parts, np.uint8)[number]


def _share_out_groups(clips: ClipTable, rule: GroupShareSplit) -> Parts:
    """Return the part of every clip, such that each part has its share of each class.

    The groups are placed one after the other, the largest first. Each group goes to the part that
    misses the clips of the group most, counted by class. If every group has a single class, then
    the number of clips of a class in a part differs from the part's share by at most twice the
    size of the largest group.
    """
    classes = int(clips.labels.max(initial=0)) + 1
    group, first = TextSearch.of(clips.groups).distinct()
    # The number of clips of each class in each group, the classes in the order of the rows.
    pairs, first_rows, sizes = np.unique(
        group * classes + clips.labels, return_index=True, return_counts=True
    )
    by_group = np.lexsort((first_rows, pairs // classes))
    pairs, sizes = pairs[by_group], sizes[by_group]
    ends = np.searchsorted(pairs // classes, np.arange(len(first) + 1)).tolist()
    hashes = key_hashes(clips.groups[first])
    totals = np.bincount(group, minlength=len(first))
    shares = (1 - rule.val_share - rule.test_share, rule.val_share, rule.test_share)
    class_sizes = np.bincount(clips.labels, minlength=classes).tolist()
    missing = [[share * size for size in class_sizes] for share in shares]
    part_of_group = np.empty(len(first), np.uint8)
    for number in np.lexsort((hashes[:, 1], hashes[:, 0], -totals)).tolist():
        place = slice(ends[number], ends[number + 1])
        labels = (pairs[place] % classes).tolist()
        counts = [*zip(labels, sizes[place].tolist(), strict=True)]
        # Choose the part whose squared distance from its shares grows least with this group:
        # (missing - n)^2 - missing^2 = n (n - 2 missing), summed over the classes.
        growth = [sum(n * (n - 2 * of_part[c]) for c, n in counts) for of_part in missing]
        part = part_of_group[number] = growth.index(min(growth))
        for c, n in counts:
            missing[part][c] -= n
    return part_of_group[group]
