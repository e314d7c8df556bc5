"""The clips of a data set as columns, and the published files of the clips.

A clip or a file becomes an object when somebody asks for the clip or the file, and only then.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from avsnn.datasets_manifest.clips import PART_OF_CODE, Clip, MediaFile
from avsnn.datasets_manifest.text_columns import (
    Texts,
    TextSearch,
    empty_texts,
    hash_texts,
    texts_of,
)

# Clips that are objects at one time while somebody goes through all clips.
CLIPS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class RecordingColumns:
    """The audio file or the visual file of every clip.

    Attributes:
        paths: path of each file, ``[N]``.
        members: name of the recording in the file; None where every file is a recording.
        sizes: size in bytes, ``int64 [N]``; -1 where nobody published the size.
        sha256: SHA-256, ``uint8 [N, 32]``; None where nobody published any.
        has_sha256: whether somebody published the SHA-256, ``bool [N]``.
    """

    paths: Texts
    members: Texts | None
    sizes: NDArray[np.int64]
    sha256: NDArray[np.uint8] | None
    has_sha256: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64] | slice) -> "RecordingColumns":
        """Return some rows."""
        return RecordingColumns(
            self.paths[rows],
            None if self.members is None else self.members[rows],
            self.sizes[rows],
            None if self.sha256 is None else self.sha256[rows],
            self.has_sha256[rows],
        )

    def recordings(self, rows: slice) -> list[str]:
        """Return `MediaFile.recording` of some rows."""
        paths: list[str] = self.paths[rows].tolist()
        if self.members is None:
            return paths
        members = self.members[rows].tolist()
        return [
            f"{path}/{name}" if name else path for path, name in zip(paths, members, strict=True)
        ]

    def files(self, rows: slice) -> list[MediaFile]:
        """Return some rows as objects."""
        paths = self.paths[rows].tolist()
        members = [""] * len(paths) if self.members is None else self.members[rows].tolist()
        digests = "" if self.sha256 is None else self.sha256[rows].tobytes().hex()
        return [
            MediaFile(
                path,
                digests[64 * i : 64 * i + 64] if has_sha256 else None,
                None if size < 0 else size,
                member,
            )
            for i, (path, has_sha256, size, member) in enumerate(
                zip(
                    paths,
                    self.has_sha256[rows].tolist(),
                    self.sizes[rows].tolist(),
                    members,
                    strict=True,
                )
            )
        ]


@dataclass(frozen=True, eq=False)
class ClipTable(Sequence[Clip]):
    """The clips of a table, in the order of its rows.

    Attributes:
        keys: the keys, ``[N]``.
        labels: index of the class, ``int32 [N]``.
        groups: the groups, ``[N]``.
        parts: index of the part in `PART_OF_CODE`, ``uint8 [N]``, by the name of each table column
            that holds a split.
        audio: the audio files.
        visual: the visual files.
    """

    keys: Texts
    labels: NDArray[np.int32]
    groups: Texts
    parts: dict[str, NDArray[np.uint8]]
    audio: RecordingColumns
    visual: RecordingColumns

    @classmethod
    def empty(cls) -> "ClipTable":
        """Return a table without clips."""
        none = RecordingColumns(
            empty_texts(0), None, np.empty(0, np.int64), None, np.empty(0, np.bool_)
        )
        return cls(empty_texts(0), np.empty(0, np.int32), empty_texts(0), {}, none, none)

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> "ClipTable": ...
    def __getitem__(self, index: int | slice) -> "Clip | ClipTable":
        if isinstance(index, slice):
            return self.take(index)
        row = range(len(self))[index]
        return self._clips(slice(row, row + 1))[0]

    def __iter__(self) -> Iterator[Clip]:
        for first in range(0, len(self), CLIPS_AT_ONCE):
            yield from self._clips(slice(first, first + CLIPS_AT_ONCE))

    def take(self, rows: NDArray[np.int64] | slice) -> "ClipTable":
        """Return the clips of some rows, in the order of ``rows``."""
        keys = self.keys[rows]
        return ClipTable(
            keys,
            self.labels[rows],
            keys if self.groups is self.keys else self.groups[rows],
            {column: codes[rows] for column, codes in self.parts.items()},
            self.audio.take(rows),
            self.visual.take(rows),
        )

    @cached_property
    def _search(self) -> TextSearch:
        return TextSearch.of(self.keys)

    def find(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each key, -1 where no clip has the key."""
        return self._search.find(keys)

    @cached_property
    def files(self) -> "FilesOfClips":
        """The files of the clips, each once."""
        return FilesOfClips(self)

    def _clips(self, rows: slice) -> list[Clip]:
        parts = {column: codes[rows].tolist() for column, codes in self.parts.items()}
        return [
            Clip(
                key,
                label,
                group,
                {column: PART_OF_CODE[codes[i]] for column, codes in parts.items()},
                audio,
                visual,
            )
            for i, (key, label, group, audio, visual) in enumerate(
                zip(
                    self.keys[rows].tolist(),
                    self.labels[rows].tolist(),
                    self.groups[rows].tolist(),
                    self.audio.files(rows),
                    self.visual.files(rows),
                    strict=True,
                )
            )
        ]


class PublishedFiles(Sequence[MediaFile]):
    """The published files of a data set, each path once, in a fixed order."""

    @property
    @abstractmethod
    def sizes(self) -> NDArray[np.int64]:
        """The size of each file in bytes, ``[F]``; -1 where nobody published the size."""

    @abstractmethod
    def with_clips(self) -> Iterator[tuple[Clip | None, MediaFile]]:
        """Yield each file with a clip that needs the file; None where a file holds many clips."""

    @abstractmethod
    def find(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of the file with each path, -1 where no file has the path."""

    @abstractmethod
    def numbers_of(self, clips: ClipTable) -> NDArray[np.int32]:
        """Return the number of the audio file and of the visual file of each clip, ``[N, 2]``."""


class FilesOfClips(PublishedFiles):
    """The files of some clips. The order is that of the clips, the audio file first.

    Where two rows of a table say different things of one path, the first row counts.
    """

    def __init__(self, clips: ClipTable) -> None:
        self._clips = clips
        hashes = np.empty((len(clips), 2), np.int64)
        for side, columns in enumerate((clips.audio, clips.visual)):
            hashes[:, side] = hash_texts(columns.paths, len(clips))
        self._search = TextSearch(hashes.reshape(-1), self._paths_at)
        # A place is twice the row of the clip, and one more for the visual file.
        numbers, self._places = self._search.distinct()
        self._numbers = numbers.astype(np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> MediaFile: ...
    @overload
    def __getitem__(self, index: slice) -> list[MediaFile]: ...
    def __getitem__(self, index: int | slice) -> MediaFile | list[MediaFile]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        row, side = divmod(int(self._places[index]), 2)
        columns = self._clips.visual if side else self._clips.audio
        return columns.files(slice(row, row + 1))[0]

    def __iter__(self) -> Iterator[MediaFile]:
        return (file for _, file in self.with_clips())

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The size of each file in bytes, ``[F]``; -1 where nobody published the size."""
        both = np.stack([self._clips.audio.sizes, self._clips.visual.sizes], axis=1)
        return both.reshape(-1)[self._places]

    def with_clips(self) -> Iterator[tuple[Clip | None, MediaFile]]:
        """Yield each file with the first clip that needs the file."""
        is_first = np.zeros((len(self._clips), 2), np.bool_)
        is_first.reshape(-1)[self._places] = True
        for clip, wanted in zip(self._clips, is_first, strict=True):
            for file, is_wanted in zip(clip.files, wanted.tolist(), strict=True):
                if is_wanted:
                    yield clip, file

    def find(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of the file with each path, -1 where no file has the path."""
        places = self._search.find(paths)
        # The last -1 is what the place -1 stands for.
        return np.append(self._numbers, -1)[places]

    def numbers_of(self, clips: ClipTable) -> NDArray[np.int32]:
        """Return the number of the audio file and of the visual file of each clip, ``[N, 2]``."""
        if clips is not self._clips:
            raise ValueError("these are the files of other clips")
        return self._numbers

    def _paths_at(self, places: NDArray[np.int64]) -> Texts:
        paths = empty_texts(len(places))
        for side, columns in enumerate((self._clips.audio, self._clips.visual)):
            of_side = np.flatnonzero(places % 2 == side)
            paths[of_side] = columns.paths[places[of_side] // 2]
        return paths


class FilesOfRecordings(PublishedFiles):
    """The files that hold many recordings; there are few of them."""

    def __init__(self, files: Sequence[MediaFile]) -> None:
        # A path that stands twice is one file.
        self._files = [*{file.path: file for file in files}.values()]

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> MediaFile: ...
    @overload
    def __getitem__(self, index: slice) -> list[MediaFile]: ...
    def __getitem__(self, index: int | slice) -> MediaFile | list[MediaFile]:
        return self._files[index]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The size of each file in bytes, ``[F]``; -1 where nobody published the size."""
        return np.array([-1 if file.size is None else file.size for file in self], np.int64)

    def with_clips(self) -> Iterator[tuple[Clip | None, MediaFile]]:
        """Yield each file, and None in place of a clip."""
        return ((None, file) for file in self)

    def find(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of the file with each path, -1 where no file has the path."""
        return TextSearch.of(texts_of(file.path for file in self)).find(paths)

    def numbers_of(self, clips: ClipTable) -> NDArray[np.int32]:
        """Return the number of the audio file and of the visual file of each clip, ``[N, 2]``."""
        numbers = [self.find(files.paths.tolist()) for files in (clips.audio, clips.visual)]
        return np.stack(numbers, axis=1).astype(np.int32)
