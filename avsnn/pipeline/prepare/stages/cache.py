"""What every cache of stage 4 does: shards of clips to a Zarr group, one Zarr shard at a time.

``formats/cache_layout.py`` says how a cache lies on disk.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from avsnn.pipeline.engine.atomic_files import Folder, sha256
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit
from avsnn.pipeline.formats.cache_layout import (
    CLIPS_PER_GROUP,
    create_row_array,
    create_small_array,
    shard_file,
    small_array_files,
)
from avsnn.pipeline.formats.membership import group_by_hash, key_hashes
from avsnn.pipeline.formats.outliers import find_outliers
from avsnn.pipeline.formats.shards import Sample, index_files, read_shards
from avsnn.pipeline.prepare.generations import earlier_generations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from avsnn.pydantic_base import StrictModel

# Names of inputs of a unit. Every other input is a clip, and a key holds no space.
ROW_SHAPE, ROW_COUNT, OUTLIERS = "shape of a row", "count of rows", "clips left out"


class _Layout(NamedTuple):
    """What the unit ``layout`` writes.

    Attributes:
        rows: number of rows of the large array.
        shape: shape of a row.
        small_arrays: the small arrays, by name.
        outliers: clips that are left out, each with the reason, by key.
    """

    rows: int
    shape: tuple[int, ...]
    small_arrays: dict[str, NDArray[Any]]
    outliers: dict[str, str]


class RowSource(NamedTuple):
    """What a row is computed from.

    Attributes:
        shard: the shard that holds the clip.
        sample: the clip.
        frame: number of the frame of the clip, from 0.
    """

    shard: Folder
    sample: Sample
    frame: int


class _Block(NamedTuple):
    """The rows that one unit writes.

    Attributes:
        number: number of the Zarr shard.
        rows: number of rows of the whole array.
        shape: shape of a row.
        sources: what each row is computed from.
    """

    number: int
    rows: int
    shape: tuple[int, ...]
    sources: list[RowSource]


@dataclass(frozen=True)
class Cache(Stage):
    """A Zarr group with one large array, and the small arrays ``key``, ``label`` and ``rows``.

    A unit is one Zarr shard of the large array, which one task writes whole. A Zarr shard depends
    on nothing but the content of its clips. The unit ``layout`` writes everything else. Clips that
    `find_outliers` names are in no array.

    Attributes:
        array: name of the large array.
        dtype: type of the numbers in the large array.
        chosen: the settings of the rows.
    """

    array: ClassVar[str]
    dtype: ClassVar[str]
    version: ClassVar[int] = 1
    decodes: ClassVar[bool] = True

    folder: Folder
    state: Path
    shards: Folder
    chosen: StrictModel

    def settings(self) -> dict[str, Any]:
        """Return all settings: every one changes the rows."""
        return self.chosen.model_dump()

    @abstractmethod
    def row_shape(self, samples: list[Sample]) -> tuple[int, ...]:
        """Return the shape of one row of the large array."""

    def rows_of(self, sample: Sample) -> int:
        """Return the number of rows of a clip: one, except where a clip has a row per frame."""
        return 1

    def rows_per_shard(self, shape: tuple[int, ...]) -> int:
        """Return the number of rows of a Zarr shard, for rows of this shape."""
        return CLIPS_PER_GROUP

    @abstractmethod
    def read(
        self, source: RowSource, shape: tuple[int, ...], tallies: Counter[str]
    ) -> NDArray[Any]:
        """Compute one row of this shape, and tally what a person should know."""

    @property
    def earlier(self) -> tuple[Folder, ...]:
        """The caches of other clips with the same settings."""
        return earlier_generations(self.folder, self.state)

    def units(self) -> list[Unit]:
        """Return the layout, then the shards of the large array."""
        digests = tuple(sha256(path) for path in index_files(self.shards))
        found, outliers = _read_shards_once(self.shards, digests)
        if not found:
            return []
        shape = self.row_shape([sample for _, sample in found.values()])
        keys, hashes = list(found), key_hashes(found)
        groups = {n: keys[rows] for n, rows in group_by_hash(hashes, CLIPS_PER_GROUP)}
        rows_per_shard = self.rows_per_shard(shape)
        spans, end = self._spans(found, groups, rows_per_shard)
        small = self.small_arrays(found, spans)
        layout = Unit(
            name="layout",
            outputs=(
                *("zarr.json", f"{self.array}/zarr.json"),
                *(file for name, a in small.items() for file in small_array_files(name, a.ndim)),
            ),
            inputs={
                **{key: [found[key][1].label, *spans[key]] for key in found},
                ROW_SHAPE: shape,
                ROW_COUNT: end,
                OUTLIERS: outliers,
            },
            work=_Layout(end, shape, small, outliers),
        )
        return [layout, *self._blocks(found, groups, spans, shape, end)]

    def _spans(
        self,
        found: Mapping[str, tuple[Folder, Sample]],
        groups: Mapping[int, list[str]],
        rows_per_shard: int,
    ) -> tuple[dict[str, tuple[int, int]], int]:
        """Return the first row and the number of rows of every clip, and the number of all rows.

        A group begins at the first row of a Zarr shard.
        """
        spans, row = {}, 0
        for keys in groups.values():
            row = -(-row // rows_per_shard) * rows_per_shard
            for key in keys:
                spans[key] = (row, self.rows_of(found[key][1]))
                row += spans[key][1]
        return spans, row

    def _blocks(
        self,
        found: Mapping[str, tuple[Folder, Sample]],
        groups: Mapping[int, list[str]],
        spans: Mapping[str, tuple[int, int]],
        shape: tuple[int, ...],
        end: int,
    ) -> Iterator[Unit]:
        """Yield a unit for every Zarr shard that holds rows."""
        rows_per_shard = self.rows_per_shard(shape)
        for group, keys in groups.items():
            rows = [(key, frame) for key in keys for frame in range(spans[key][1])]
            first_shard = spans[keys[0]][0] // rows_per_shard
            for number, start in enumerate(range(0, len(rows), rows_per_shard)):
                block = rows[start : start + rows_per_shard]
                frames: dict[str, list[int]] = {}
                for key, frame in block:
                    frames.setdefault(key, []).append(frame)
                yield Unit(
                    # The name does not change when other groups are divided or joined.
                    name=f"{self.array}-{group:06d}.{number}",
                    outputs=(shard_file(self.array, first_shard + number, len(shape)),),
                    inputs={
                        **{
                            key: [found[key][1].sha256, numbers[0], len(numbers)]
                            for key, numbers in frames.items()
                        },
                        ROW_SHAPE: shape,
                    },
                    work=_Block(
                        first_shard + number,
                        end,
                        shape,
                        [RowSource(*found[key], frame) for key, frame in block],
                    ),
                )

    def count_outliers(self, outcome: Outcome, outliers: dict[str, str]) -> Outcome:
        """Count clips that are left out as skipped; the stage `frames` counts them as failed."""
        outcome.skipped += len(outliers)
        return outcome

    def small_arrays(
        self, found: Mapping[str, tuple[Folder, Sample]], spans: Mapping[str, tuple[int, int]]
    ) -> dict[str, NDArray[Any]]:
        """Return the small arrays by name, ``[N]`` or ``[N, 2]``."""
        return {
            "key": np.array(list(found)),
            "label": np.array([sample.label for _, sample in found.values()], np.int64),
            "rows": np.array([spans[key] for key in found], np.int64),
        }

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Write the layout, which counts the clips, or one shard of the large array."""
        import zarr
        from zarr.storage import MemoryStore

        # Zarr writes to a folder through hard links, which exFAT does not know.
        files: dict[str, Any] = {}
        group = zarr.create_group(MemoryStore(files), zarr_format=3)
        work: _Layout | _Block = unit.work
        array = create_row_array(
            group,
            self.array,
            rows=work.rows,
            rows_per_shard=self.rows_per_shard(work.shape),
            row_shape=work.shape,
            dtype=self.dtype,
        )
        if isinstance(work, _Layout):
            for name, values in work.small_arrays.items():
                create_small_array(group, name, values)
            outcome = Outcome(written=len(work.small_arrays["key"]))
            outcome = self.count_outliers(outcome, work.outliers)
        else:
            tallies: Counter[str] = Counter()
            rows = [self.read(source, work.shape, tallies) for source in work.sources]
            start = work.number * self.rows_per_shard(work.shape)
            array[start : start + len(rows)] = np.stack(rows)
            outcome = Outcome(tallies=dict(tallies))
        for name in unit.outputs:
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_bytes(files[name].to_bytes())
        return outcome


@lru_cache(maxsize=1)
def _read_shards_once(
    shards: Folder, digests: tuple[str, ...]
) -> tuple[dict[str, tuple[Folder, Sample]], dict[str, str]]:
    """Return the samples of all shards by key, without outliers, and the outliers with reasons.

    The samples are read once for both caches.

    Args:
        shards: the folder of the shards.
        digests: SHA-256 of every index; a changed index makes the cached answer unused.
    """
    found = read_shards(shards)
    outliers = find_outliers([sample for _, sample in found])
    return {
        sample.key: (shard, sample) for shard, sample in found if sample.key not in outliers
    }, outliers
