"""The index of a data set: ``clips.jsonl``, and the same clips as columns in ``clips.npz``.

``clips.jsonl`` has one line for each clip whose files are all here, in the order of `hash_order`.
``clips.npz`` holds where each line starts, and what is asked of many clips at once. So nobody
parses a million lines to read one, and nobody holds an object for each clip.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from avsnn.datasets_manifest.clips import NO_PART, PARTS
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.formats.column_files import ColumnFile, pack_texts, write_columns
from avsnn.pipeline.formats.damaged import damaged_error, unreadable_error
from avsnn.pipeline.formats.membership import key_hashes

ROWS, COLUMNS = "clips.jsonl", "clips.npz"

# The parts by their code in a column of parts.
PART_OF_CODE = (*PARTS, NO_PART)


class IndexRow(BaseModel):
    """A clip whose files are all here: one line of ``clips.jsonl``.

    Attributes:
        key: key of the clip.
        label: index of the class.
        label_name: name of the class.
        group: the speaker, actor or recording that the clip comes from.
        part: part of the clip in the default split.
        splits: part of the clip in every split, by the name of the split.
        audio: path of the audio file below the folder of the files as published.
        visual: path of the image or video below the same folder as the audio file.
        sha256: SHA-256 of both files, by path.
    """

    key: str
    label: int
    label_name: str
    group: str
    part: str
    splits: dict[str, str]
    audio: str
    visual: str
    sha256: dict[str, str]

    @property
    def source(self) -> str:
        """A fingerprint of the two files, which changes with their names and their bytes."""
        return fingerprint([self.audio, self.visual, self.sha256])


class SizedRow(NamedTuple):
    """A row of the index, with the size of its files.

    Attributes:
        row: the row.
        size: bytes of the files that are of this clip alone; 0 where the files hold many clips.
    """

    row: IndexRow
    size: int


def write_index(
    folder: Path, rows: Iterable[SizedRow], *, classes: Sequence[str], splits: Iterable[str]
) -> int:
    """Write ``clips.jsonl`` and ``clips.npz``.

    Args:
        folder: the folder of the files.
        rows: the rows, in the order of `hash_order`.
        classes: names of the classes, in the order of their labels.
        splits: names of the splits, which are the same in all rows.

    Returns:
        the number of rows.
    """
    writer = _ColumnWriter(classes, splits)
    with (folder / ROWS).open("wb") as file:
        for row, size in rows:
            writer.add(row, size, file.tell())
            file.write(row.model_dump_json().encode() + b"\n")
        return writer.write(folder / COLUMNS, end=file.tell())


def open_index(folder: Path) -> "ClipIndex":
    """Open the index of a data set.

    Args:
        folder: the folder of ``clips.jsonl`` and ``clips.npz``.

    Raises:
        UserError: one of the files is missing, cannot be read or is damaged, or the two files were
            not written together.
    """
    return ClipIndex(folder)


class ClipIndex:
    """The clips of a prepared data set, in the order of `hash_order`.

    A column is read from the disk when it is first asked for. A damaged column raises a
    ``UserError`` at that moment.

    Attributes:
        folder: the folder of ``clips.jsonl`` and ``clips.npz``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._columns = ColumnFile(folder / COLUMNS)
        try:
            size = (folder / ROWS).stat().st_size
        except OSError as error:
            raise unreadable_error(folder / ROWS, error) from None
        self._offsets = self._columns.read("offsets", np.int64, (None,))
        starts = self._offsets
        if not len(starts) or starts[0] != 0 or np.any(np.diff(starts) <= 0):
            raise damaged_error(folder / COLUMNS, "its lines start in impossible places")
        if starts[-1] != size:
            why = f"it has {size:,} bytes, {starts[-1]:,} were written"
            raise damaged_error(folder / ROWS, why)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @cached_property
    def keys(self) -> NDArray[Any]:
        """The keys, ``StringDType [N]``."""
        return self._columns.read_texts("keys", len(self))

    @cached_property
    def groups(self) -> NDArray[Any]:
        """The group of each clip, ``StringDType [N]``."""
        return self._columns.read_texts("groups", len(self))

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """The hash of each key, ``uint64 [N, 2]``; see `key_hashes`."""
        return self._read("hashes", np.uint64, 2)

    @cached_property
    def sources(self) -> NDArray[np.uint64]:
        """The first 128 bits of `IndexRow.source`, ``uint64 [N, 2]``."""
        return self._read("sources", np.uint64, 2)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The bytes of the files of each clip, ``[N]``; 0 where the files hold many clips."""
        return self._read("sizes", np.int64)

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their labels."""
        return tuple(self._columns.read_texts("label_names", None).tolist())

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """The index of the class of each clip, ``[N]``."""
        labels: NDArray[np.int32] = self._read("labels", np.int32)
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.label_names):
            raise damaged_error(self._columns.path, "it has labels of no class")
        return labels

    @cached_property
    def parts(self) -> dict[str, NDArray[np.uint8]]:
        """The part of each clip in every split, by the name of the split, ``[N]``.

        A part is its index in `PART_OF_CODE`.
        """
        splits = self._columns.read_texts("splits", None).tolist()
        codes = self._columns.read("parts", np.uint8, (len(splits), len(self)))
        if codes.size and codes.max() >= len(PART_OF_CODE):
            raise damaged_error(self._columns.path, "it has parts that no split has")
        return dict(zip(splits, codes, strict=True))

    def row(self, number: int) -> IndexRow:
        """Return the clip of a line.

        Raises:
            UserError: the line cannot be read or is damaged.
        """
        return next(self.rows([number]))

    def rows(self, numbers: Iterable[int] | None = None) -> Iterator[IndexRow]:
        """Yield the clips of some lines.

        Args:
            numbers: the numbers of the lines, each from 0 to ``len(self) - 1``; None yields all.

        Raises:
            UserError: a line cannot be read or is damaged.
        """
        path = self.folder / ROWS
        try:
            with path.open("rb") as file:
                for number in range(len(self)) if numbers is None else numbers:
                    start, end = self._offsets[number : number + 2].tolist()
                    if file.tell() != start:
                        file.seek(start)
                    row = IndexRow.model_validate_json(file.read(end - start))
                    if row.key != self.keys[number]:
                        raise damaged_error(path, f"line {number + 1} is not {self.keys[number]}")
                    yield row
        except OSError as error:
            raise unreadable_error(path, error) from None
        except ValidationError:
            raise damaged_error(path) from None

    def find(self, keys: Iterable[str]) -> NDArray[np.int64]:
        """Return the number of the line of each key, -1 where the index has no such key."""
        return find_hashes(self.hashes, key_hashes(keys))

    def fingerprint(self, split: str) -> str:
        """Return the fingerprint of what a training on a split depends on, besides the caches.

        The fingerprint covers the label, the name of the class and the part of every clip. The
        value is `fingerprint` of a list of ``[key, label, name, part]``, in the order of the keys.
        """
        codes = self.parts.get(split)
        parts = (None,) if codes is None else PART_OF_CODE
        # Few ends of an item differ, so a million items need no JSON encoder for all their values.
        ends = {
            (label, code): canonical_json([label, name, part])[1:]
            for label, name in enumerate(self.label_names)
            for code, part in enumerate(parts)
        }
        digest, separator = hashlib.sha256(), "["
        for number in np.argsort(self.keys, kind="stable"):
            ...


def find_hashes(
    known: NDArray[np.uint64], wanted: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Return the row of each hash among hashes in order, -1 where there is no such hash.

    Args:
        known: hashes in the order of `hash_order`, ``[N, 2]``.
        wanted: the hashes that are looked for, ``[M, 2]``.
    """
    if not len(known):
        return np.full(len(wanted), -1)
    high = np.ascontiguousarray(known[:, 0])
    rows = np.searchsorted(high, wanted[:, 0])
    last = len(known) - 1
    while True:
        rows = np.minimum(rows, last)
        is_next = (high[rows] == wanted[:, 0]) & (known[rows, 1] < wanted[:, 1]) & (rows < last)
        if not is_next.any():
            break
        rows += is_next
    return np.where((known[rows] == wanted).all(axis=1), rows, -1)
