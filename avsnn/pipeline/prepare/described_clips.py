"""What is known of the clips of a data set before the index is written: table, parts and files."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from avsnn.datasets_manifest import Manifest
from avsnn.datasets_manifest.clip_table import ClipTable, PublishedFiles
from avsnn.datasets_manifest.clips import PART_OF_CODE
from avsnn.datasets_manifest.table_reader import SHA256
from avsnn.pipeline.engine.journal import Record
from avsnn.pipeline.formats.clip_index import IndexRow, SizedRow
from avsnn.pipeline.formats.membership import hash_order
from avsnn.pipeline.prepare.splits import Parts, assign_parts, hashes_of

# Clips or files that are objects at one time.
AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class DescribedClips:
    """The clips of a data set with their parts, and what fetch has brought of their files.

    Attributes:
        manifest: the facts about the data set.
        clips: the clips.
        parts: the part of each clip in every split, by the name of the split, ``[N]``.
        files: number of the audio file and of the visual file of each clip, ``[N, 2]``.
        sha256: SHA-256 of each file as fetched, ``[F, 32]``.
        sizes: bytes of each file as fetched, ``[F]``; -1 where fetch has not brought the file.
        has_record: whether fetch has brought each file, or could not, ``[F]``.
    """

    manifest: Manifest
    clips: ClipTable
    parts: dict[str, Parts]
    files: NDArray[np.int32]
    sha256: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    has_record: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The rows of the clips in the order of the hashes of their keys, ``[N]``."""
        return hash_order(hashes_of(self.clips))

    @cached_property
    def is_complete(self) -> NDArray[np.bool_]:
        """Whether both files of each clip are here, ``[N]``."""
        is_complete: NDArray[np.bool_] = np.all(self.sizes[self.files] >= 0, axis=1)
        return is_complete

    @cached_property
    def clip_sizes(self) -> NDArray[np.int64]:
        """The bytes of the files that are of each clip alone, ``[N]``.

        A file that is not here counts 0, and so does a file that holds many recordings.
        """
        sizes = np.maximum(self.sizes, 0)[self.files]
        for side, files in enumerate((self.clips.audio, self.clips.visual)):
            if files.members is not None:
                sizes[files.members != "", side] = 0
        sizes[self.files[:, 0] == self.files[:, 1], 1] = 0
        total: NDArray[np.int64] = sizes.sum(axis=1)
        return total

    @cached_property
    def fingerprint(self) -> str:
        """A fingerprint of all facts, whatever the order of the table is."""
        digest = hashlib.sha256()
        for rows in self._blocks(self.order):
            clips = self.clips.take(rows)
            files = (clips.audio, clips.visual)
            texts: list[list[str]] = [clips.keys.tolist(), clips.groups.tolist()]
            texts += [columns.recordings(slice(None)) for columns in files]
            for column in texts:
                # No text of a table holds the character NUL.
                digest.update("\0".join(column).encode() + b"\0\0")
            digest.update(clips.labels.astype("<i4").tobytes())
            for split in sorted(self.parts):
                digest.update(self.parts[split][rows].tobytes())
            numbers = self.files[rows]
            digest.update((self.sizes[numbers] >= 0).tobytes() + self.sha256[numbers].tobytes())
        return digest.hexdigest()

    def rows(self) -> Iterator[SizedRow]:
        """Yield the rows of the index: the clips whose files are here, in the order of hashes."""
        classes, default = self.manifest.classes, self.manifest.default_split
        for rows in self._blocks(self.order[self.is_complete[self.order]]):
            parts = {split: codes[rows].tolist() for split, codes in self.parts.items()}
            digests = self.sha256[self.files[rows]].tobytes().hex()
            sizes = self.clip_sizes[rows].tolist()
            for i, clip in enumerate(self.clips.take(rows)):
                splits = {split: PART_OF_CODE[codes[i]] for split, codes in parts.items()}
                first, middle, end = 128 * i, 128 * i + 64, 128 * i + 128
                row = IndexRow.model_construct(
                    key=clip.key,
                    label=clip.label,
                    label_name=classes[clip.label],
                    group=clip.group,
                    part=splits[default],
                    splits=splits,
                    audio=clip.audio.recording,
                    visual=clip.visual.recording,
                    sha256={
                        clip.audio.path: digests[first:middle],
                        clip.visual.path: digests[middle:end],
                    },
                )
                yield SizedRow(row, sizes[i])

    @staticmethod
    def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        return (rows[first : first + AT_ONCE] for first in range(0, len(rows), AT_ONCE))


def describe(
    manifest: Manifest, clips: ClipTable, files: PublishedFiles, fetched: Iterable[Record]
) -> DescribedClips:
    """Return what the clips of a data set are, and which files fetch has brought.

    Args:
        manifest: the facts about the data set.
        clips: the clips: all of the data set, or a selection.
        files: the files of the clips.
        fetched: the records of fetch.
    """
    rows: slice | NDArray[np.int64] = slice(None)
    if clips is not manifest.clips:
        rows = manifest.clips.find(clips.keys.tolist())
    sha256, sizes = np.zeros((len(files), 32), np.uint8), np.full(len(files), -1)
    has_record = np.zeros(len(files), np.bool_)
    found_records = iter(fetched)
    while some := list(islice(found_records, AT_ONCE)):
        numbers, found = files.find([record.unit for record in some]), [*map(_output, some)]
        sizes_found = np.array([size for _, size in found])
        has_record[numbers[numbers >= 0]] = True
        is_here = (numbers >= 0) & (sizes_found >= 0)
        digests = bytes.fromhex("".join(digest for digest, _ in found))
        sha256[numbers[is_here]] = np.frombuffer(digests, np.uint8).reshape(-1, 32)[is_here]
        sizes[numbers[is_here]] = sizes_found[is_here]
    return DescribedClips(
        manifest=manifest,
        clips=clips,
        parts={split: assign_parts(manifest, split)[rows] for split in manifest.splits},
        files=files.numbers_of(clips),
        sha256=sha256,
        sizes=sizes,
        has_record=has_record,
    )


def _output(record: Record) -> tuple[str, int]:
    """Return SHA-256 and size of what a record brought; the size -1 where the record has no file.

    The lines of the first versions have no checksum, so a SHA-256 may be damaged.
    """
    if record.outputs and SHA256.fullmatch(record.outputs[0].sha256):
        return record.outputs[0].sha256, record.outputs[0].size
    return "0" * 64, -1
