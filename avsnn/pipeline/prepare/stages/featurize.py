"""4. Shards to tensors: a Zarr cache of frames and a Zarr cache of audio images, of the same clips.

The caches are separate, so that another audio setting leaves the frames alone, and another frame
setting the audio. ``formats/cache_layout.py`` says how a cache lies on disk.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from avsnn.pipeline.engine.atomic_files import Folder, sha256
from avsnn.pipeline.engine.journal import Failure
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit
from avsnn.pipeline.formats.audio_rows import audio_row
from avsnn.pipeline.formats.cache_layout import (
    ROWS_PER_SHARD,
    create_row_array,
    create_small_array,
    shard_file,
    small_array_files,
)
from avsnn.pipeline.formats.frame_rows import frame_row, frame_shape
from avsnn.pipeline.formats.outliers import find_outliers
from avsnn.pipeline.formats.shards import (
    AUDIO_MEMBER,
    Sample,
    index_files,
    read_member,
    read_shards,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from avsnn.pipeline.formats.prepare_settings import AudioSettings, FrameSettings

# Names of inputs of a unit. Every other input is a shard, and the name of a shard holds no space.
ROW_SHAPE, ROW_COUNT, ROWS_OF_BLOCK = "shape of a row", "count of rows", "rows of a block"
OUTLIERS = "clips left out"


class _Block(NamedTuple):
    """The rows that one unit writes.

    Attributes:
        number: number of the Zarr shard.
        rows: number of rows of the whole array.
        shape: shape of a row.
        sources: shard, sample and frame number of each row.
        outliers: clips that are left out, each with the reason, by key; only the first block
            counts the clips.
    """

    number: int
    rows: int
    shape: tuple[int, ...]
    sources: list[tuple[Folder, Sample, int]]
    outliers: dict[str, str]


@dataclass(frozen=True)
class Cache(Stage):
    """A Zarr group with one large array, and the small arrays ``key`` and ``label``.

    A unit is one Zarr shard of the large array, which one task writes whole. The unit ``layout``
    writes everything else. Clips that `find_outliers` names are in no array.
    """

    array: ClassVar[str]
    dtype: ClassVar[str]
    version: ClassVar[int] = 1
    decodes: ClassVar[bool] = True

    folder: Folder
    state: Path
    shards: Folder

    @abstractmethod
    def row_shape(self, samples: list[Sample]) -> tuple[int, ...]:
        """Return the shape of one row of the large array."""

    @abstractmethod
    def rows(self, samples: list[Sample]) -> list[tuple[int, int]]:
        """Return the sample and the frame number behind every row of the large array."""

    @abstractmethod
    def read(
        self, shard: Folder, sample: Sample, frame: int, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """Compute one row of this shape from a shard."""

    def units(self) -> list[Unit]:
        """Return the layout, then the shards of the large array."""
        # The index of a shard holds offsets, sizes and parts, so the digest of the index stands for
        # the bytes that a row is made of.
        digests = {path.stem: sha256(path) for path in index_files(self.shards)}
        found, outliers = _read_shards_once(self.shards, tuple(digests.values()))
        left_out = {OUTLIERS: sorted(outliers)} if outliers else {}
        samples = [sample for _, sample in found]
        if not samples:
            return []
        shape, rows = self.row_shape(samples), self.rows(samples)
        small = (file for name in self.small_arrays(samples) for file in small_array_files(name))
        layout = Unit(
            name="layout",
            outputs=("zarr.json", f"{self.array}/zarr.json", *small),
            inputs={**digests, ROW_SHAPE: shape, ROW_COUNT: len(rows), **left_out},
        )
        blocks = []
        for number, start in enumerate(range(0, len(rows), ROWS_PER_SHARD)):
            block = rows[start : start + ROWS_PER_SHARD]
            first, last = block[0][0], block[-1][0]
            shards = dict.fromkeys(shard for shard, _ in found[first : last + 1])
            sources = [(*found[sample], frame) for sample, frame in block]
            blocks.append(
                Unit(
                    name=f"{self.array}-{number:06d}",
                    outputs=(shard_file(self.array, number, len(shape)),),
                    inputs={
                        **{shard.stem: digests[shard.stem] for shard in shards},
                        ROWS_OF_BLOCK: block,
                        ROW_SHAPE: shape,
                        ROW_COUNT: len(rows),
                        **left_out,
                    },
                    work=_Block(number, len(rows), shape, sources, outliers if number == 0 else {}),
                )
            )
        return [layout, *blocks]

    def count_outliers(self, outcome: Outcome, outliers: dict[str, str]) -> Outcome:
        """Count clips that are left out as skipped; the stage `frames` counts them as failed."""
        outcome.skipped += len(outliers)
        return outcome

    def small_arrays(self, samples: list[Sample]) -> dict[str, NDArray[Any]]:
        """Return the small arrays by name, each ``[N]``."""
        return {
            "key": np.array([sample.key for sample in samples]),
            "label": np.array([sample.label for sample in samples], np.int64),
        }

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Write the layout, or one shard of the large array."""
        import zarr

        group = zarr.create_group(scratch, zarr_format=3)
        if unit.work is None:
            self._create_rows(group, unit.inputs[ROW_COUNT], unit.inputs[ROW_SHAPE])
            samples = [sample for _, sample in _read_usable(self.shards)[0]]
            for name, values in self.small_arrays(samples).items():
                create_small_array(group, name, values)
            return Outcome()
        block: _Block = unit.work
        array = self._create_rows(group, block.rows, block.shape)
        values = np.stack(
            [self.read(shard, sample, frame, block.shape) for shard, sample, frame in block.sources]
        )
        start = block.number * ROWS_PER_SHARD
        array[start : start + len(values)] = values
        written = sum(frame == 0 for _, _, frame in block.sources)
        return self.count_outliers(Outcome(written=written), block.outliers)

    def _create_rows(self, group: Any, rows: int, shape: tuple[int, ...]) -> Any:
        return create_row_array(group, self.array, rows=rows, row_shape=shape, dtype=self.dtype)


@dataclass(frozen=True)
class FrameCache(Cache):
    """The frame cache.

    ``frames`` uint8 ``[sum K, 3, H, W]`` RGB, where a clip has K frames; ``offsets`` int64
    ``[N + 1]``, where each clip's frames start; ``key`` and ``label`` ``[N]``.
    """

    name: ClassVar[str] = "frames"
    version: ClassVar[int] = 2
    array: ClassVar[str] = "frames"
    dtype: ClassVar[str] = "uint8"

    chosen: FrameSettings

    def settings(self) -> dict[str, Any]:
        """Return all settings: every one changes the frames."""
        return self.chosen.model_dump()

    def row_shape(self, samples: list[Sample]) -> tuple[int, ...]:
        """Return the shape of one frame, ``(3, H, W)``."""
        return frame_shape(samples, self.chosen)

    def rows(self, samples: list[Sample]) -> list[tuple[int, int]]:
        """Return all frames of all clips."""
        return [(i, frame) for i, sample in enumerate(samples) for frame in range(sample.frames)]

    def small_arrays(self, samples: list[Sample]) -> dict[str, NDArray[Any]]:
        """Return the small arrays, with ``offsets``."""
        counts = [sample.frames for sample in samples]
        offsets = np.cumsum([0, *counts], dtype=np.int64)
        return super().small_arrays(samples) | {"offsets": offsets}

    def count_outliers(self, outcome: Outcome, outliers: dict[str, str]) -> Outcome:
        """Count clips that are left out as failed."""
        outcome.failures += [Failure(self.name, key, why) for key, why in outliers.items()]
        return outcome

    def read(
        self, shard: Folder, sample: Sample, frame: int, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """Return one frame ``[3, H, W]``."""
        image = read_member(shard, sample.members[sample.frame_member(frame)])
        return frame_row(image, shape, self.chosen)


@dataclass(frozen=True)
class AudioCache(Cache):
    """The audio cache: ``audio`` float32 ``[N, 1, F, F]``; ``key`` and ``label`` ``[N]``."""

    name: ClassVar[str] = "audio"
    version: ClassVar[int] = 2
    array: ClassVar[str] = "audio"
    dtype: ClassVar[str] = "float32"

    chosen: AudioSettings

    def settings(self) -> dict[str, Any]:
        """Return all settings: every one changes the audio images."""
        return self.chosen.model_dump()

    def row_shape(self, samples: list[Sample]) -> tuple[int, ...]:
        """Return the shape of one audio image: one channel, square."""
        return (1, self.chosen.size, self.chosen.size)

    def rows(self, samples: list[Sample]) -> list[tuple[int, int]]:
        """Return one row per clip."""
        return [(i, 0) for i in range(len(samples))]

    def read(
        self, shard: Folder, sample: Sample, frame: int, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """Return the audio image ``[1, F, F]`` of a clip."""
        return audio_row(read_member(shard, sample.members[AUDIO_MEMBER]), sample.key, self.chosen)


@lru_cache(maxsize=1)
def _read_shards_once(
    shards: Folder, digests: tuple[str, ...]
) -> tuple[list[tuple[Folder, Sample]], dict[str, str]]:
    """Read the samples of all shards once for both caches.

    Args:
        shards: the folder of the shards.
        digests: SHA-256 of every index; a changed index makes the cached answer unused.
    """
    return _read_usable(shards)


def _read_usable(shards: Folder) -> tuple[list[tuple[Folder, Sample]], dict[str, str]]:
    """Return the samples of all shards without outliers, and the outliers with their reasons."""
    found = read_shards(shards)
    outliers = find_outliers([sample for _, sample in found])
    return [(shard, sample) for shard, sample in found if sample.key not in outliers], outliers
