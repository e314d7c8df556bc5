"""4. Shards to tensors: a Zarr cache of frames and a Zarr cache of audio images, of the same clips.

The caches are separate, so that another audio setting leaves the frames alone, and another frame
setting the audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from avsnn.pipeline.engine.journal import Failure
from avsnn.pipeline.formats.audio_rows import audio_row
from avsnn.pipeline.formats.frame_rows import frame_row, frame_shape
from avsnn.pipeline.formats.shards import AUDIO_MEMBER
from avsnn.pipeline.prepare.stages.cache import Cache

if TYPE_CHECKING:
    from collections import Counter

    from numpy.typing import NDArray

    from avsnn.pipeline.engine.stage import Outcome
    from avsnn.pipeline.formats.prepare_settings import AudioSettings, FrameSettings
    from avsnn.pipeline.formats.shard_columns import ShardColumns
    from avsnn.pipeline.formats.shards import Member


@dataclass(frozen=True)
class FrameCache(Cache):
    """The frame cache.

    ``frames`` uint8 ``[R, 3, H, W]`` RGB, where a clip has one row for each frame; ``key`` and
    ``label`` ``[N]``; ``rows`` int64 ``[N, 2]``.
    """

    name: ClassVar[str] = "frames"
    version: ClassVar[int] = 3
    array: ClassVar[str] = "frames"
    dtype: ClassVar[str] = "uint8"

    chosen: FrameSettings

    def row_shape(self, columns: ShardColumns) -> tuple[int, ...]:
        """Return the shape of one frame, ``(3, H, W)``."""
        return frame_shape(columns.clips, self.chosen)

    def row_counts(self, columns: ShardColumns) -> NDArray[np.int64]:
        """Return the number of frames of each clip."""
        return columns.clips["frames"].astype(np.int64)

    def rows_per_shard(self, shape: tuple[int, ...]) -> int:
        """Return 256, for frames of any size."""
        return 256

    def count_outliers(self, outcome: Outcome, outliers: dict[str, str]) -> Outcome:
        """Count clips that are left out as failed."""
        outcome.failures += [Failure(self.name, key, why) for key, why in outliers.items()]
        return outcome

    def member(self, columns: ShardColumns, row: int, frame: int) -> Member:
        """Return the image of a frame."""
        return columns.frame(row, frame)

    def compute(
        self, data: bytes, key: str, shape: tuple[int, ...], tallies: Counter[str]
    ) -> NDArray[Any]:
        """Return one frame ``[3, H, W]``."""
        return frame_row(data, shape, self.chosen)


@dataclass(frozen=True)
class AudioCache(Cache):
    """The audio cache: ``audio`` float32 ``[R, 1, F, F]``; ``key``, ``label`` and ``rows``."""

    name: ClassVar[str] = "audio"
    version: ClassVar[int] = 3
    array: ClassVar[str] = "audio"
    dtype: ClassVar[str] = "float32"

    chosen: AudioSettings

    def row_shape(self, columns: ShardColumns) -> tuple[int, ...]:
        """Return the shape of one audio image: one channel, square."""
        return (1, self.chosen.size, self.chosen.size)

    def member(self, columns: ShardColumns, row: int, frame: int) -> Member:
        """Return the sound of a clip."""
        return columns.member(row, AUDIO_MEMBER)

    def compute(
        self, data: bytes, key: str, shape: tuple[int, ...], tallies: Counter[str]
    ) -> NDArray[Any]:
        """Return the audio image ``[1, F, F]`` of a clip."""
        return audio_row(data, key, self.chosen)
