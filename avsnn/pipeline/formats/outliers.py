"""Clips whose frames are so small that the frame cache leaves the clips out.

All rows of the frame cache have one shape, so one small clip would shrink the frames of all clips.
"""

from __future__ import annotations

from statistics import median_low
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avsnn.pipeline.formats.shards import Sample

# A frame of this shorter side in px is never too small: half of the published size, 256 px.
ALWAYS_LARGE_ENOUGH = 128


def find_outliers(samples: list[Sample]) -> dict[str, str]:
    """Return the clips that are too small, each with the reason, by key.

    A clip is too small if its shorter side is less than half of the median of all clips' shorter
    sides, and less than 128 px. The answer depends on the shards alone, not on settings, so that
    both caches and a training that reads shards leave out the same clips.
    """
    if not samples:
        return {}
    median = median_low(min(sample.height, sample.width) for sample in samples)
    limit = min(median / 2, ALWAYS_LARGE_ENOUGH)
    return {
        sample.key: f"frames of {sample.width} x {sample.height} px are too small: the median "
        f"of the shorter sides of all clips is {median} px, and frames under half of the median "
        "would shrink the frames of all clips"
        for sample in samples
        if min(sample.height, sample.width) < limit
    }
