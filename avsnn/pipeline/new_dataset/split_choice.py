"""Chooses the split of a new data set: the parts that are given, or parts without leaks."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from avsnn.datasets_manifest import Manifest
from avsnn.datasets_manifest.clips import PART_OF_CODE, PARTS
from avsnn.datasets_manifest.split_rules import GroupShareSplit
from avsnn.pipeline.new_dataset.draft import Draft
from avsnn.pipeline.prepare.splits import assign_parts

# Shares of test and val. The first shares are usual. With few clips or few groups, they leave a
# class or a part without clips, and larger shares may not.
SHARES = ((0.2, 0.1), (0.2, 0.15), (0.2, 0.2), (0.25, 0.2), (0.25, 0.25), (0.3, 0.3), (0.33, 0.33))
# Shares of the train part for val, where nobody gave a val part; small classes need larger shares.
VAL_FRACTIONS = (0.1, 0.15, 0.2, 0.25, 0.33)

GIVEN, DEFAULT = "given", "default"
#: The column of the table that holds the parts that are given.
PART_COLUMN = "part"


def given_split(drafts: Sequence[Draft]) -> tuple[list[Draft], dict[str, Any], list[str]]:
    """Return the clips, the rule of their given parts, and sentences on what was changed.

    Where nobody gave a test part, the val part becomes the test part, because a network must be
    measured on clips that chose nothing.
    """
    notes = []
    parts = {draft.part for draft in drafts}
    rule: dict[str, Any] = {"column": PART_COLUMN}
    if "test" not in parts and "val" in parts:
        drafts = [replace(d, part="test" if d.part == "val" else d.part) for d in drafts]
        notes.append("There is no test part, so the val part that is given becomes the test part.")
        parts = {draft.part for draft in drafts}
    if "val" not in parts:
        sizes = Counter(draft.label for draft in drafts if draft.part == "train").values()
        # A class of one clip stays in the train part.
        smallest = min((size for size in sizes if size > 1), default=1)
        enough = (share for share in VAL_FRACTIONS if round(share * smallest) > 0)
        rule["val_fraction"] = share = next(enough, VAL_FRACTIONS[-1])
        notes.append(
            f"There is no val part, so {share:.0%} of the train part becomes the val part."
        )
    return list(drafts), rule, notes


def choose_shares(manifest: Manifest) -> dict[str, Any]:
    """Return the rule that gives all parts clips of all classes, as far as the groups allow.

    Args:
        manifest: the new data set, with any split; its clips are read already.
    """

    def gaps(shares: tuple[float, float]) -> tuple[int, int, int]:
        """Return how many parts are empty, and how many classes are missing in test and in val."""
        test, val = shares
        rule = GroupShareSplit(test_share=test, val_share=val)
        trial = manifest.model_copy(update={"splits": {DEFAULT: rule}})
        counts = count_parts(trial, DEFAULT)
        missing = {part: sum(not counts[part, name] for name in manifest.classes) for part in PARTS}
        empty = sum(missing[part] == len(manifest.classes) for part in PARTS)
        return empty, missing["train"] + missing["test"], missing["val"]

    # `min` returns the first of equal shares, and the usual shares stand first.
    test, val = min(SHARES, key=gaps)
    return {"test_share": test, "val_share": val}


def count_parts(manifest: Manifest, split: str) -> Counter[tuple[str, str]]:
    """Return the number of clips of every part and class."""
    parts, labels = assign_parts(manifest, split), manifest.clips.labels
    pairs, counts = np.unique(np.stack([parts, labels], axis=1), axis=0, return_counts=True)
    found = zip(pairs.tolist(), counts.tolist(), strict=True)
    return Counter({(PART_OF_CODE[p], manifest.classes[c]): count for (p, c), count in found})
