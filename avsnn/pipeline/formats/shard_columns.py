"""The clips of all shards of a data set as columns; an object is made for one clip on demand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from upath import UPath

from avsnn.datasets_manifest.clips import PART_OF_CODE
from avsnn.pipeline.engine.stores import Listed, list_files, read_files
from avsnn.pipeline.formats.damaged import damaged_error
from avsnn.pipeline.formats.membership import hash_order
from avsnn.pipeline.formats.shard_index import (
    CLIP,
    DIGESTS,
    INDEX_SUFFIX,
    MEMBER,
    read_index_arrays,
)
from avsnn.pipeline.formats.shards import EventSensors, Member, Sample
from avsnn.pipeline.media.events import Sensor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from avsnn.pipeline.engine.atomic_files import Folder

# Where a clip is: the number of the shard, the row in the index of the shard, and the row of the
# clip's first member in `ShardColumns.members`.
PLACE = np.dtype([("shard", "<i4"), ("row", "<i4"), ("first_member", "<i8")])


@dataclass(frozen=True)
class Shard:
    """A shard whose index was read.

    Attributes:
        tar: the shard.
        index_crc32c: the CRC-32C of the index.
    """

    tar: Folder
    index_crc32c: int

    @property
    def index(self) -> Folder:
        """The index beside the shard."""
        return self.tar.with_suffix(INDEX_SUFFIX)


@dataclass(frozen=True, eq=False)
class ShardColumns:
    """The clips of some shards, in the order of `hash_order`, for N clips with M members.

    The order depends on the keys alone. So the order stays when a clip moves from one part of a
    split to another.

    Attributes:
        shards: the shards.
        splits: the names of the splits.
        names: the names of members, without the key of the clip.
        keys: the keys, ``StringDType [N]``.
        clips: `CLIP` ``[N]``: the attributes of `Sample`, the hash of the key, and the number of
            members.
        parts: the part of each clip in each split, as an index of `PART_OF_CODE`, ``[N, S]``.
        digests: `DIGESTS` ``[N]``; None where nobody asked for them.
        sensors: the sensors of each clip that is events, ``[N, 8]``, otherwise ``[0, 8]``; see
            ``formats/shard_index.py``.
        places: `PLACE` ``[N]``.
        members: `MEMBER` ``[M]``; the members of a clip follow each other.
    """

    shards: tuple[Shard, ...]
    splits: tuple[str, ...]
    names: tuple[str, ...]
    keys: NDArray[Any]
    clips: NDArray[Any]
    parts: NDArray[np.uint8]
    digests: NDArray[Any] | None
    sensors: NDArray[np.int64]
    places: NDArray[Any]
    members: NDArray[Any]

    def __len__(self) -> int:
        return len(self.clips)

    def take(self, rows: NDArray[Any]) -> ShardColumns:
        """Return some of the clips.

        Args:
            rows: the rows of the clips in their order, or a boolean for every clip.
        """
        return replace(
            self,
            keys=self.keys[rows],
            clips=self.clips[rows],
            parts=self.parts[rows],
            digests=None if self.digests is None else self.digests[rows],
            sensors=self.sensors[rows] if len(self.sensors) else self.sensors,
            places=self.places[rows],
        )

    def shard(self, row: int) -> Folder:
        """Return the shard that holds a clip."""
        return self.shards[int(self.places["shard"][row])].tar

    def member(self, row: int, name: str) -> Member:
        """Return a member of a clip.

        Raises:
            UserError: the clip has no such member.
        """
        return self._member_of(row, self._name_numbers.get(name, ()))

    def frame(self, row: int, frame: int) -> Member:
        """Return the member of a clip that holds a frame, counted from 0.

        Raises:
            UserError: the clip has no such frame.
        """
        return self._member_of(row, self._frame_numbers.get(str(frame), ()))

    def sample(self, row: int) -> tuple[Folder, Sample]:
        """Return the shard that holds a clip, and the clip."""
        clip = self.clips[row]
        parts = (PART_OF_CODE[code] for code in self.parts[row])
        return self.shard(row), Sample(
            key=self.keys[row],
            label=int(clip["label"]),
            splits=dict(zip(self.splits, parts, strict=True)),
            frames=int(clip["frames"]),
            height=int(clip["height"]),
            width=int(clip["width"]),
            audio_seconds=float(clip["audio_seconds"]),
            audio_rate=int(clip["audio_rate"]),
            events=_event_sensors(self.sensors[row].tolist()) if len(self.sensors) else None,
            members={
                self.names[name]: Member(*place) for name, *place in self._members(row).tolist()
            },
        )

    @cached_property
    def _name_numbers(self) -> dict[str, tuple[int, ...]]:
        return {name: (number,) for number, name in enumerate(self.names)}

    @cached_property
    def _frame_numbers(self) -> dict[str, tuple[int, ...]]:
        """The numbers of the names that a frame may have, by the text before the first dot."""
        numbers: dict[str, tuple[int, ...]] = {}
        for number, name in enumerate(self.names):
            start = name.partition(".")[0]
            numbers[start] = (*numbers.get(start, ()), number)
        return numbers

    def _members(self, row: int) -> NDArray[Any]:
        first = self.places["first_member"][row]
        return self.members[first : first + self.clips["members"][row]]

    def _member_of(self, row: int, names: tuple[int, ...]) -> Member:
        for name, *place in self._members(row).tolist():
            if name in names:
                return Member(*place)
        raise damaged_error(self.shard(row).with_suffix(INDEX_SUFFIX))


def open_shards(folder: Folder, *, digests: bool = False) -> ShardColumns:
    """Return the clips of all shards in a folder.

    Args:
        folder: the folder of the shards.
        digests: read the digests too.

    Raises:
        UserError: the index of a shard is damaged.
    """
    if not isinstance(folder, UPath):
        contents = ((path, path.read_bytes()) for path in index_files(folder))
        return _open_contents(contents, digests=digests)
    files = tuple(file for file in list_files(folder) if file.path.endswith(INDEX_SUFFIX))
    # Only a prepare asks for the digests, and asks several times; a training asks once.
    read = _open_in_store if digests else _open_in_store.__wrapped__
    return read(folder, files, digests=digests)


@lru_cache(maxsize=1)
def _open_in_store(folder: UPath, files: tuple[Listed, ...], *, digests: bool) -> ShardColumns:
    """Return the clips of shards in a store, whose indexes are read in one call."""
    paths = [file.path for file in files]
    found = read_files(folder, paths)
    # A file that went away meanwhile counts as damaged.
    contents = ((folder / path.rpartition("/")[2], found.pop(path, b"")) for path in paths)
    return _open_contents(contents, digests=digests)


def _open_contents(contents: Iterable[tuple[Folder, bytes]], *, digests: bool) -> ShardColumns:
    read = [read_shard_index(path, data, digests=digests) for path, data in contents]
    return _join(read) if read else _NO_SHARDS


@lru_cache(maxsize=8)
def open_shard(shard: Shard) -> ShardColumns:
    """Return the clips of one shard in the order of the tar, with their digests.

    The indexes of the last few shards stay in memory, because the next clips are mostly in the
    shards of the clips before.

    Raises:
        UserError: the index is damaged, or is no longer the index that was read.
    """
    data = shard.index.read_bytes()
    if google_crc32c.value(data) != shard.index_crc32c:
        raise damaged_error(shard.index, "it holds other bytes than were written")
    return read_shard_index(shard.index, data, digests=True)


def index_files(folder: Path) -> list[Path]:
    """Return the index files of all shards in a folder, sorted."""
    return sorted(folder.glob(f"*{INDEX_SUFFIX}"), key=str)


def read_shard_index(path: Folder, data: bytes, *, digests: bool) -> ShardColumns:
    """Return the clips of one shard in the order of the tar.

    Args:
        path: the index beside the shard.
        data: the bytes of the index.
        digests: keep the digests too.

    Raises:
        UserError: the index is damaged.
    """
    try:
        arrays = read_index_arrays(data)
    except ValueError:
        raise damaged_error(path) from None
    keys, splits, names = (
        array.astype(np.dtypes.StringDType()) for array in (arrays.key, arrays.splits, arrays.names)
    )
    clips = arrays.clips
    places = np.zeros(len(clips), PLACE)
    places["row"] = np.arange(len(clips))
    places["first_member"] = np.cumsum(clips["members"], dtype=np.int64) - clips["members"]
    return ShardColumns(
        shards=(Shard(path.with_suffix(".tar"), google_crc32c.value(data)),),
        splits=tuple(splits.tolist()),
        names=tuple(names.tolist()),
        keys=keys,
        clips=clips,
        parts=arrays.parts,
        digests=arrays.digests if digests else None,
        sensors=arrays.sensors,
        places=places,
        members=arrays.members,
    )


def _join(read: list[ShardColumns]) -> ShardColumns:
    """Return the clips of several shards in the order of `hash_order`.

    Raises:
        UserError: the shards were not written together.
    """
    numbers: dict[str, int] = {}
    places, first = [], 0
    members = np.empty(sum(len(one.members) for one in read), MEMBER)
    for shard, one in enumerate(read):
        if one.splits != read[0].splits or bool(len(one.sensors)) != bool(len(read[0].sensors)):
            raise damaged_error(one.shards[0].index)
        moved = members[first : first + len(one.members)]
        moved[:] = one.members
        new = np.array([numbers.setdefault(name, len(numbers)) for name in one.names], np.int32)
        moved["name"] = new[one.members["name"]]
        placed = one.places.copy()
        placed["shard"] = shard
        placed["first_member"] += first
        places.append(placed)
        first += len(moved)
    order = hash_order(np.concatenate([one.clips["hash"] for one in read]))
    digests = [one.digests for one in read if one.digests is not None]
    sensors = np.concatenate([one.sensors for one in read])
    # Each column is put in order before the next column is joined, so only one column is in memory
    # twice.
    return ShardColumns(
        shards=tuple(one.shards[0] for one in read),
        splits=read[0].splits,
        names=tuple(numbers),
        keys=np.concatenate([one.keys for one in read])[order],
        clips=np.concatenate([one.clips for one in read])[order],
        parts=np.concatenate([one.parts for one in read])[order],
        digests=np.concatenate(digests)[order] if digests else None,
        sensors=sensors[order] if len(sensors) else sensors,
        places=np.concatenate(places)[order],
        members=members,
    )


_NO_SHARDS = ShardColumns(
    shards=(),
    splits=(),
    names=(),
    keys=np.empty(0, np.dtypes.StringDType()),
    clips=np.empty(0, CLIP),
    parts=np.empty((0, 0), np.uint8),
    digests=np.empty(0, DIGESTS),
    sensors=np.empty((0, 8), np.int64),
    places=np.empty(0, PLACE),
    members=np.empty(0, MEMBER),
)


def _event_sensors(numbers: list[int]) -> EventSensors:
    camera, cochlea, counts = numbers[:3], numbers[3:6], numbers[6:]
    return EventSensors(Sensor(*camera), Sensor(*cochlea), *counts)
