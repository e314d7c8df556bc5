"""Samples from the WebDataset shards."""

import os
import sys
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from upath import UPath

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.engine.stores import require_store, store_errors
from avsnn.pipeline.formats.damaged import damaged_error, unreadable_error
from avsnn.pipeline.formats.outliers import find_outliers
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.shard_columns import open_shards
from avsnn.pipeline.formats.shards import Member, read_members, require_written_bytes
from avsnn.pipeline.loading.local_cache import Copies, LocalCache, open_local_cache
from avsnn.pipeline.loading.open_files import Descriptor, KeptOpen
from avsnn.pipeline.loading.shard_rows import rows_of_clips
from avsnn.pipeline.loading.source import Samples, requested_frames
from avsnn.pipeline.media.errors import MediaError


class ShardSource:
    """The WebDataset shards of a data set, read at random through the index beside each shard.

    Only the frame that is asked for is decoded. The samples are equal to the samples of
    ``CacheSource``, to the bit. Some stores, such as some HTTP servers, give whole files only. Then
    a shard is copied to this machine when it is first needed; the order of samples does not change.

    Args:
        shards: the folder of the shards.
        settings: the settings of the caches, whose rows this source computes.
        copies: where shards of such a store are copied to; None takes the cache of the environment.

    Raises:
        UserError: the folder holds no shards, or a shard is damaged.
    """

    def __init__(
        self, *, shards: Folder, settings: PrepareSettings, copies: LocalCache | None = None
    ) -> None:
        if isinstance(shards, UPath):
            require_store(shards)
        found = open_shards(shards)
        if not len(found):
            raise UserError(f"{shards} holds no shards; run 'avsnn prepare' again.")
        is_kept = np.ones(len(found), bool)
        is_kept[list(find_outliers(found.clips))] = False
        self._found = found.take(is_kept)
        self.keys = self._found.keys
        self.labels = torch.from_numpy(self._found.clips["label"].astype(np.int64))
        self.frame_counts = self._found.clips["frames"].astype(np.int64)
        self._rows = rows_of_clips(self._found, settings)
        self.shapes = self._rows.shapes
        self.note = ""
        self._open_shards = KeptOpen()
        self._copies: Copies | None = None
        if isinstance(shards, UPath) and not _reads_ranges(*self._any_member()):
            copies = copies or open_local_cache()
            self._copies = copies.copies_of(shards)
            self.note = f"{copies.note(shards)}, because the store gives whole files only"

    def read(self, rows: NDArray[np.int64], frame_positions: NDArray[np.float64]) -> Samples:
        """Return the samples of some rows, as `Source` says."""
        frame_numbers = requested_frames(frame_positions, self.frame_counts[rows])
        of_clip = frame_numbers.reshape(len(rows), -1)
        wanted = [
            (self._found.shard(row), member)
            for row, numbers in zip(rows, of_clip, strict=True)
            for member in self._rows.members(self._found, row, numbers)
        ]
        data = self._read_members(wanted)
        # The frames of a clip, then its sound.
        members = of_clip.shape[1] + 1
        decoded = [
            self._decode(row, *data[number * members : (number + 1) * members])
            for number, row in enumerate(rows)
        ]
        frames = np.stack([frames for frames, _ in decoded])
        return Samples(
            frames=torch.from_numpy(frames.reshape(*frame_numbers.shape, *frames.shape[2:])),
            audio=torch.from_numpy(np.stack([audio for _, audio in decoded])),
            labels=self.labels[torch.from_numpy(rows)],
        )

    def read_sounds(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Return the bytes of the sound files of some rows; of event sensors, of the cochleas.

        Raises:
            UserError: a shard is missing, cut, damaged or cannot be opened.
        """
        wanted = [
            (self._found.shard(row), self._rows.members(self._found, row, ())[-1]) for row in rows
        ]
        return self._read_members(wanted)

    def shard_of(self, row: int) -> Folder:
        """Return the shard that holds the clip of a row."""
        return self._found.shard(row)

    def _read_members(self, wanted: list[tuple[Folder, Member]]) -> list[bytes]:
        """Read members of shards; from a store, all members in one call.

        Raises:
            UserError: a shard is missing, cut, damaged or cannot be opened.
        """
        if not isinstance(wanted[0][0], UPath):
            found = [self._read_member(shard, member) for shard, member in wanted]
        elif self._copies is not None:
            self._copies.fetch({_name_of(shard) for shard, _ in wanted})
            found = [
                self._read_member(self._copies.path(_name_of(shard)), member)
                for shard, member in wanted
            ]
        else:
            return read_members(wanted)
        for (shard, member), data in zip(wanted, found, strict=True):
            require_written_bytes(shard, member, data)
        return found

    def _read_member(self, shard: Folder, member: Member) -> bytes:
        try:
            if sys.platform == "win32":
                # Windows has no `pread`, and threads that share a descriptor would move its
                # position.
                with shard.open("rb") as file:
                    file.seek(member.offset)
                    data: bytes = file.read(member.size)
                return data
            path = str(shard)
            file = self._open_shards.get(path, partial(Descriptor, path))
            return os.pread(file.number, member.size, member.offset)
        except OSError as error:
            raise unreadable_error(shard, error) from None

    def _any_member(self) -> tuple[Folder, Member]:
        shard, sample = self._found.sample(0)
        return shard, next(iter(sample.members.values()))

    def _decode(self, row: int, *members: bytes) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Return rows of the frame cache, of which there may be several, and the row of the sound.

        Args:
            row: row of the clip.
            *members: the frames of the clip, then its sound.
        """
        *images, sound = members
        key = str(self.keys[row])
        try:
            frames = np.stack([self._rows.frames(image) for image in images])
            return frames, self._rows.audio(sound, key)
        except MediaError as error:
            raise damaged_error(self._found.shard(row), f"clip {key} {error}") from None


def _reads_ranges(shard: Folder, member: Member) -> bool:
    """Return whether a store gives the range of a file that is asked for, not the whole file."""
    assert isinstance(shard, UPath)  # noqa: S101 - narrows the type
    start, end = member.offset, member.offset + member.size
    try:
        with store_errors(shard):
            piece = shard.fs.cat_file(shard.path, start=start, end=end)
    except FileNotFoundError as error:
        raise unreadable_error(shard, error) from None
    return len(piece) == member.size


def _name_of(shard: Folder) -> str:
    # A kind of URL that universal-pathlib does not know has no right `name`.
    return str(shard).rpartition("/")[2]
