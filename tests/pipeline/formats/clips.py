"""Clips as the index of a shard describes clips."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.formats.shard_index import CLIP


def clips_of(shapes: list[tuple[int, int]]) -> NDArray[Any]:
    """Return clips with frames of some shapes ``(height, width)``."""
    clips = np.zeros(len(shapes), CLIP)
    clips["height"], clips["width"] = np.array(shapes, np.int32).reshape(-1, 2).T
    return clips
