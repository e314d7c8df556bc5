"""The index of a data set: ``clips.jsonl``, and the same clips as columns in ``clips.npz``.

``clips.jsonl`` has one line for each clip whose files are all here, in the order of `hash_order`.
``clips.npz`` holds where each line starts, and what is asked of many clips at once. So nobody
parses a million lines to read one, and nobody holds an object for each clip.
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from avsnn.datasets_manifest.clips import PART_OF_CODE
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.formats.column_files import ColumnFile, TextPacker, unpack_texts
from avsnn.pipeline.formats.damaged import damaged_error, unreadable_error
from avsnn.pipeline.formats.membership import key_hashes
from avsnn.pipeline.formats.npz import write_npz

ROWS, COLUMNS = "clips.jsonl", "clips.npz"


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


def read_lines(folder: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    """Yield lines of ``clips.jsonl``, each with its line break.

    Args:
        folder: the folder of ``clips.jsonl``.
        offsets: where the lines start.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with (folder / ROWS).open("rb") as file:
            for offset in offsets:
                # A seek would throw away what was read ahead.
                if file.tell() != offset:
                    file.seek(offset)
                yield file.readline()
    except OSError as error:
        raise unreadable_error(folder / ROWS, error) from None


def read_rows(folder: Path, offsets: Iterable[int]) -> Iterator[IndexRow]:
    """Yield the clips of lines of ``clips.jsonl``.

    Args:
        folder: the folder of ``clips.jsonl``.
        offsets: where the lines start.

    Raises:
        UserError: the file cannot be read or is damaged.
    """
    for line in read_lines(folder, offsets):
        try:
            yield IndexRow.model_validate_json(line)
        except ValidationError:
            raise damaged_error(folder / ROWS) from None


class ClipIndex:
    """The clips of a prepared data set, in the order of `hash_order`.

    A column is read from the disk when it is first asked for. A damaged column raises a
    ``UserError`` at that moment.

    Attributes:
        folder: the folder of ``clips.jsonl`` and ``clips.npz``.
        offsets: where each line of ``clips.jsonl`` starts, and where the last line ends,
            ``int64 [N + 1]``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._columns = ColumnFile(folder / COLUMNS)
        try:
            size = (folder / ROWS).stat().st_size
        except OSError as error:
            raise unreadable_error(folder / ROWS, error) from None
        self.offsets = self._columns.read("offsets", np.int64, (None,))
        starts = self.offsets
        if not len(starts) or starts[0] != 0 or np.any(np.diff(starts) <= 0):
            raise damaged_error(folder / COLUMNS, "its lines start in impossible places")
        if starts[-1] != size:
            why = f"it has {size:,} bytes, {starts[-1]:,} were written"
            raise damaged_error(folder / ROWS, why)

    def __len__(self) -> int:
        return len(self.offsets) - 1

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
        self._require_parts(codes)
        return dict(zip(splits, codes, strict=True))

    @cached_property
    def part(self) -> NDArray[np.uint8]:
        """The part of each clip in the split that was the default split, ``[N]``; see `parts`."""
        codes: NDArray[np.uint8] = self._read("part", np.uint8)
        self._require_parts(codes)
        return codes

    def _require_parts(self, codes: NDArray[np.uint8]) -> None:
        if codes.size and codes.max() >= len(PART_OF_CODE):
            raise damaged_error(self._columns.path, "it has parts that no split has")

    def _read(self, name: str, dtype: type[np.generic], *shape: int) -> NDArray[Any]:
        column: NDArray[Any] = self._columns.read(name, dtype, (len(self), *shape))
        return column

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
        chosen = np.arange(len(self)) if numbers is None else np.array([*numbers], np.int64)
        rows = read_rows(self.folder, self.offsets[:-1][chosen].tolist())
        for number, row in zip(chosen.tolist(), rows, strict=True):
            if row.key != self.keys[number]:
                why = f"line {number + 1} is not {self.keys[number]}"
                raise damaged_error(self.folder / ROWS, why)
            yield row

    def find(self, keys: Iterable[str]) -> NDArray[np.int64]:
        """Return the number of the line of each key, -1 where the index has no such key."""
        return find_hashes(self.hashes, key_hashes(keys))

    def fingerprint(self, split: str) -> str:
        """Return the fingerprint of what a training on a split depends on, besides the caches.

        The fingerprint covers the label, the name of the class and the part of every clip. The
        value is `fingerprint` of a list of ``[key, label, name, part]``, in the order of the keys.
        """
        codes, parts = self.parts.get(split), (*PART_OF_CODE, None)
        if codes is None:
            codes = np.full(len(self), len(PART_OF_CODE), np.uint8)
        # A million items have few different ends, so the JSON encoder makes each end once.
        ends = [
            [json.dumps([label, name, part], separators=(",", ":"))[1:] for part in parts]
            for label, name in enumerate(self.label_names)
        ]
        digest, before = hashlib.sha256(), "["
        for number in np.argsort(self.keys, kind="stable").tolist():
            item = f"{before}[{json.dumps(self.keys[number])},"
            digest.update(f"{item}{ends[self.labels[number]][codes[number]]}".encode())
            before = ","
        digest.update(b"]" if len(self) else b"[]")
        return digest.hexdigest()


class _ColumnWriter:
    """Collects the columns of an index.

    Args:
        classes: names of the classes, in the order of their labels.
        splits: names of the splits.
    """

    def __init__(self, classes: Sequence[str], splits: Iterable[str]) -> None:
        self._classes, self._splits = classes, tuple(splits)
        self._offsets, self._sizes, self._labels = array("q"), array("q"), array("i")
        self._parts = [bytearray() for _ in self._splits]
        self._part = bytearray()
        self._keys, self._groups, self._sources = TextPacker(), TextPacker(), bytearray()

    def add(self, row: IndexRow, size: int, offset: int) -> None:
        """Add a row whose line starts at ``offset``."""
        self._offsets.append(offset)
        self._sizes.append(size)
        self._labels.append(row.label)
        self._keys.append(row.key)
        self._groups.append(row.group)
        self._sources += bytes.fromhex(row.source[:32])
        self._part.append(PART_OF_CODE.index(row.part))
        for split, codes in zip(self._splits, self._parts, strict=True):
            codes.append(PART_OF_CODE.index(row.splits[split]))

    def write(self, path: Path, *, end: int) -> int:
        """Write the columns, and return the number of rows.

        Args:
            path: the file.
            end: where the last line ends.
        """
        count = len(self._offsets)
        self._offsets.append(end)
        keys = self._keys.columns("keys")
        parts = np.frombuffer(b"".join(self._parts), np.uint8)
        columns = {
            "offsets": np.array(self._offsets, np.int64),
            "hashes": key_hashes(unpack_texts(keys["keys_utf8"], keys["keys_ends"])),
            **keys,
            "labels": np.array(self._labels, np.int32),
            **TextPacker(self._classes).columns("label_names"),
            **self._groups.columns("groups"),
            **TextPacker(self._splits).columns("splits"),
            "parts": parts.reshape(len(self._splits), count),
            "part": np.frombuffer(self._part, np.uint8),
            "sizes": np.array(self._sizes, np.int64),
            "sources": np.frombuffer(self._sources, ">u8").astype(np.uint64).reshape(-1, 2),
        }
        with path.open("wb") as file:
            write_npz(file, columns)
        return count


def find_hashes(known: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
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
