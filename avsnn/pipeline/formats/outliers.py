"""Clips whose frames are so small that the frame cache leaves the clips out.

All rows of the frame cache have one shape, so one small clip would shrink the frames of all clips.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A frame of this shorter side in px is never too small: half of the published size, 256 px.
ALWAYS_LARGE_ENOUGH = 128


def find_outliers(clips: NDArray[Any]) -> dict[int, str]:
    """Return the rows of the clips that are too small, each with the reason.

    A clip is too small if its shorter side is less than half of the median of all clips' shorter
    sides, and less than 128 px. The answer depends on the shards alone, not on settings, so that
    both caches and a training that reads shards leave out the same clips.

    Args:
        clips: `ShardColumns.clips`, whose ``height`` and ``width`` are read.
    """
    if not len(clips):
        return {}
    sides = np.minimum(clips["height"], clips["width"])
    middle = (len(sides) - 1) // 2
    # Of two clips in the middle, the smaller one counts.
    median = int(np.partition(sides, middle)[middle])
    limit = min(median / 2, ALWAYS_LARGE_ENOUGH)
    return {
        row: f"frames of {clips['width'][row]} x {clips['height'][row]} px are too small: the "
        f"median of the shorter sides of all clips is {median} px, and frames under half of the "
        "median would shrink the frames of all clips"
        for row in np.flatnonzero(sides < limit).tolist()
    }
