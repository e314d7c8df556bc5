"""What every cache of stage 4 does: shards of clips to a Zarr group, one Zarr shard at a time.

``formats/cache_layout.py`` says how a cache lies on disk.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from avsnn.errors import UserError
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit
from avsnn.pipeline.formats.cache_layout import (
    CLIPS_PER_GROUP,
    create_row_array,
    create_small_array,
    shard_file,
    small_array_files,
)
from avsnn.pipeline.formats.membership import group_by_hash
from avsnn.pipeline.formats.outliers import find_outliers
from avsnn.pipeline.formats.shard_columns import Shard, ShardColumns, open_shard, open_shards
from avsnn.pipeline.formats.shards import Member, read_members
from avsnn.pipeline.prepare.generations import earlier_generations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from avsnn.pipeline.engine.atomic_files import Folder
    from avsnn.pydantic_base import StrictModel

# Names of inputs of a unit: fingerprints, except the shape and the count.
CLIPS, OUTLIERS = "list of clips", "clips left out"
ROW_SHAPE, ROW_COUNT = "shape of a row", "count of rows"

# Members that are read from the shards together are at most this large, unless a single one is
# larger, because a worker holds these members in memory.
READ_BYTES = 2**26

# Texts that are Python objects at one time.
TEXTS_AT_ONCE = 65_536


class _Layout(NamedTuple):
    """Where the rows of all clips are.

    Attributes:
        columns: the clips that the cache holds.
        outliers: the other clips, each with the reason, by key.
        shape: shape of a row.
        spans: the first row and the number of rows of every clip, ``[N, 2]``.
        groups: the number of each group, and its slice of the clips.
        rows: number of rows of the large array.
    """

    columns: ShardColumns
    outliers: dict[str, str]
    shape: tuple[int, ...]
    spans: NDArray[np.int64]
    groups: list[tuple[int, slice]]
    rows: int


class _Block(NamedTuple):
    """The rows that one unit writes.

    Attributes:
        number: number of the Zarr shard.
        rows: number of rows of the whole array.
        shape: shape of a row.
        shards: the shards that hold the clips.
        places: what each row is computed from: number of the shard in ``shards``, row in the index
            of the shard, and number of the frame of the clip, ``[R, 3]``.
    """

    number: int
    rows: int
    shape: tuple[int, ...]
    shards: tuple[Shard, ...]
    places: NDArray[np.int32]


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
    def row_shape(self, columns: ShardColumns) -> tuple[int, ...]:
        """Return the shape of one row of the large array."""

    def row_counts(self, columns: ShardColumns) -> NDArray[np.int64]:
        """Return the number of rows of each clip: one, but a frame cache has a row per frame."""
        return np.ones(len(columns), np.int64)

    def rows_per_shard(self, shape: tuple[int, ...]) -> int:
        """Return the number of rows of a Zarr shard, for rows of this shape."""
        return CLIPS_PER_GROUP

    @abstractmethod
    def member(self, columns: ShardColumns, row: int, frame: int) -> Member:
        """Return the member of a shard from which a row of the large array is computed.

        Args:
            columns: the clips of the shard.
            row: the row of the clip in ``columns``.
            frame: the number of the frame of the clip, from 0.
        """

    @abstractmethod
    def compute(
        self, data: bytes, key: str, shape: tuple[int, ...], tallies: Counter[str]
    ) -> NDArray[Any]:
        """Compute one row of this shape, and tally what a person should know.

        Args:
            data: the bytes of the member.
            key: the key of the clip.
            shape: shape of the row.
            tallies: gets the tallies.
        """

    @property
    def earlier(self) -> tuple[Folder, ...]:
        """The caches of other clips with the same settings."""
        return earlier_generations(self.folder, self.state)

    def units(self) -> Iterator[Unit]:
        """Yield the layout, then the shards of the large array."""
        if (layout := self._read_layout()) is None:
            return
        small = (*self._small_arrays(layout).items(),)
        yield Unit(
            name="layout",
            outputs=(
                *("zarr.json", f"{self.array}/zarr.json"),
                *(file for name, a in small for file in small_array_files(name, a.ndim)),
            ),
            inputs={
                CLIPS: _fingerprint(*(values for _, values in small)),
                ROW_SHAPE: layout.shape,
                ROW_COUNT: layout.rows,
                OUTLIERS: fingerprint(layout.outliers),
            },
        )
        del small
        yield from self._blocks(layout)

    def _read_layout(self) -> _Layout | None:
        """Return where the rows of all clips are, or None where there are no clips.

        A group begins at the first row of a Zarr shard.
        """
        columns = open_shards(self.shards, digests=True)
        outliers = find_outliers(columns.clips)
        reasons = {columns.keys[row]: why for row, why in outliers.items()}
        if outliers:
            is_kept = np.ones(len(columns), bool)
            is_kept[list(outliers)] = False
            columns = columns.take(is_kept)
        if not len(columns):
            return None
        shape = self.row_shape(columns)
        counts = self.row_counts(columns)
        groups = list(group_by_hash(columns.clips["hash"], CLIPS_PER_GROUP))
        rows_per_shard = self.rows_per_shard(shape)
        starts, row = np.cumsum(counts) - counts, 0
        for _, group in groups:
            row = -(-row // rows_per_shard) * rows_per_shard
            starts[group] += row - starts[group.start]
            row = int(starts[group.stop - 1] + counts[group.stop - 1])
        spans = np.stack([starts, counts], axis=1)
        return _Layout(columns, reasons, shape, spans, groups, row)

    def _blocks(self, layout: _Layout) -> Iterator[Unit]:
        """Yield a unit for every Zarr shard that holds rows."""
        columns, shape = layout.columns, layout.shape
        rows_per_shard = self.rows_per_shard(shape)
        assert columns.digests is not None  # noqa: S101 - narrows the type
        digests = columns.digests["sha256"]
        for group, clips in layout.groups:
            first_row = int(layout.spans[clips.start, 0])
            counts = layout.spans[clips, 1]
            # The clip of every row of the group, and the frame of the clip.
            clip_of_row = np.repeat(np.arange(clips.start, clips.stop), counts)
            frame_of_row = first_row + np.arange(len(clip_of_row)) - layout.spans[clip_of_row, 0]
            for number, start in enumerate(range(0, len(clip_of_row), rows_per_shard)):
                block = slice(start, start + rows_per_shard)
                block_clips, frames = clip_of_row[block], frame_of_row[block]
                places = columns.places[block_clips]
                shards, shard_of_row = np.unique(places["shard"], return_inverse=True)
                in_array = first_row // rows_per_shard + number
                yield Unit(
                    # The name does not change when other groups are divided or joined.
                    name=f"{self.array}-{group:06d}.{number}",
                    outputs=(shard_file(self.array, in_array, len(shape)),),
                    inputs={
                        CLIPS: _fingerprint(
                            columns.keys[block_clips], digests[block_clips], frames
                        ),
                        ROW_SHAPE: shape,
                    },
                    work=_Block(
                        in_array,
                        layout.rows,
                        shape,
                        tuple(columns.shards[shard] for shard in shards),
                        np.stack([shard_of_row, places["row"], frames], axis=1).astype(np.int32),
                    ),
                )

    def count_outliers(self, outcome: Outcome, outliers: dict[str, str]) -> Outcome:
        """Count clips that are left out as skipped; the stage `frames` counts them as failed."""
        outcome.skipped += len(outliers)
        return outcome

    def _small_arrays(self, layout: _Layout) -> dict[str, NDArray[Any]]:
        """Return the small arrays by name, ``[N]`` or ``[N, 2]``."""
        return {
            "key": layout.columns.keys,
            "label": layout.columns.clips["label"].astype(np.int64),
            "rows": layout.spans,
        }

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Write the layout, which counts the clips, or one shard of the large array."""
        import zarr
        from zarr.storage import MemoryStore

        # Zarr writes to a folder through hard links, which exFAT does not know.
        files: dict[str, Any] = {}
        group = zarr.create_group(MemoryStore(files), zarr_format=3)
        # The layout is as large as the data set, so a unit does not carry the layout to a worker.
        work: _Layout | _Block | None = unit.work or self._read_layout()
        if work is None:
            raise UserError(f"{self.shards} holds no shards any more; run the same command again.")
        array = create_row_array(
            group,
            self.array,
            rows=work.rows,
            rows_per_shard=self.rows_per_shard(work.shape),
            row_shape=work.shape,
            dtype=self.dtype,
        )
        if isinstance(work, _Layout):
            for name, values in self._small_arrays(work).items():
                create_small_array(group, name, values)
            outcome = self.count_outliers(Outcome(written=len(work.columns)), work.outliers)
        else:
            tallies: Counter[str] = Counter()
            rows = [
                self.compute(data, key, work.shape, tallies) for key, data in self._read_block(work)
            ]
            start = work.number * self.rows_per_shard(work.shape)
            array[start : start + len(rows)] = np.stack(rows)
            outcome = Outcome(tallies=dict(tallies))
        for name in unit.outputs:
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_bytes(files[name].to_bytes())
        return outcome

    def _read_block(self, block: _Block) -> Iterator[tuple[str, bytes]]:
        """Yield the key and the bytes of the member from which each row is computed."""
        keys, wanted = [], []
        for shard, row, frame in block.places.tolist():
            columns = open_shard(block.shards[shard])
            keys.append(columns.keys[row])
            wanted.append((block.shards[shard].tar, self.member(columns, row, frame)))
        yield from zip(keys, _read_in_pieces(wanted), strict=True)


def _read_in_pieces(wanted: list[tuple[Folder, Member]]) -> Iterator[bytes]:
    """Yield the bytes of members; the members that are in memory together are `READ_BYTES`."""
    ends = np.cumsum([member.size for _, member in wanted])
    first = 0
    while first < len(wanted):
        before = ends[first] - wanted[first][1].size
        end = max(first + 1, int(np.searchsorted(ends, before + READ_BYTES, side="right")))
        yield from read_members(wanted[first:end])
        first = end


def _fingerprint(*columns: NDArray[Any]) -> str:
    """Return the SHA-256 of columns of texts or numbers."""
    digest = hashlib.sha256()
    for values in columns:
        if values.dtype.kind == "T":
            for first in range(0, len(values), TEXTS_AT_ONCE):
                # No key holds a space.
                digest.update(" ".join((*values[first : first + TEXTS_AT_ONCE], "")).encode())
        else:
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
