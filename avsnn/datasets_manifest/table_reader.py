"""Reads the CSV table that lists the clips of a data set."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from io import BufferedReader
from itertools import chain, islice
from operator import itemgetter
from typing import Any, BinaryIO

import numpy as np

from avsnn.datasets_manifest.clip_table import ClipTable, RecordingColumns
from avsnn.datasets_manifest.clips import (
    COLUMNS,
    KEY,
    PART_OF_CODE,
    PARTS,
    composed,
    is_plain_path,
    split_recording,
)
from avsnn.datasets_manifest.csv_rows import rows_of_file
from avsnn.datasets_manifest.text_columns import TextSearch, empty_texts
from avsnn.errors import UserError
from avsnn.suggestions import did_you_mean

REQUIRED_COLUMNS = ("key", "label", "audio_path", "visual_path")

SHA256 = re.compile(r"[0-9a-f]{64}")
# Python converts no text of thousands of digits, and would take the digits of every script.
NUMBER = re.compile(r"[0-9]{1,18}")

# A message quotes no more characters of a value than this.
QUOTED_CHARACTERS = 40
# Rows that are objects at one time.
ROWS_AT_ONCE = 4096

_CODE_OF_PART = {part: PART_OF_CODE.index(part) for part in PARTS}


def read_table(
    file: BinaryIO,
    *,
    name: str,
    classes: Sequence[str],
    part_columns: Sequence[str],
    needs_groups: bool = False,
    holds_recordings: bool = False,
    labels_are_numbers: bool = False,
) -> ClipTable:
    """Read the clips of a table, in the order of the rows; empty rows are skipped.

    The file is read twice, so that neither its text nor its rows need be in memory.

    Args:
        file: the table: a CSV file with a header and one row per clip. The fields are separated
            by commas, semicolons or tabs. The encoding is UTF-8, or the encoding that the mark at
            the start of the file names.
        name: name of the table in error messages.
        classes: names of the classes, in the order of their labels.
        part_columns: names of the columns that hold the parts of a split.
        needs_groups: whether the column ``group`` is required; without the column, every clip is a
            group of its own.
        holds_recordings: whether a path may go on inside a file that holds many recordings.
        labels_are_numbers: whether every label is the index of a class, also where a class has a
            number as its name.

    Raises:
        UserError: the table is not text in such an encoding, a column is missing, there is no row,
            a row is cut off or too long, a value is not allowed, a path leaves the data set's
            folder, or a key occurs twice.
    """
    with closing(rows_of_file(file, name)) as rows:
        header = [column.strip() for column in next(rows, [])]
        required = (*REQUIRED_COLUMNS, *(["group"] * needs_groups), *part_columns)
        if missing := [column for column in required if column not in header]:
            near = did_you_mean(missing[0], [_short(column) for column in header])
            raise UserError(f"{name}: has no column {missing[0]!r}; {near}add the column.")
        place, texts, count = header.index("label"), set(), 0
        for row in rows:
            texts.update(row[place : place + 1])
            count += 1
    labels = _labels_of(texts, () if labels_are_numbers else classes, len(classes))
    reader = _TableReader(name, header, part_columns, classes, labels)
    with closing(rows_of_file(file, name)) as rows:
        clips = reader.clips(islice(rows, 1, None), count, holds_recordings)
    if not clips:
        raise UserError(f"{name}: has no clips; add a row for each clip.")
    _, first_rows = TextSearch.of(clips.keys).distinct()
    if len(first_rows) < len(clips):
        is_first = np.zeros(len(clips), np.bool_)
        is_first[first_rows] = True
        twice = clips.keys[int(np.argmin(is_first))]
        raise UserError(f"{name}: key {twice} occurs twice; every clip needs a key of its own.")
    return clips


# The table that was read last, by everything that the table depends on.
_latest: dict[tuple[object, ...], ClipTable] = {}


def read_table_once(
    file: BufferedReader, *, classes: Sequence[str], part_columns: Sequence[str], **how: Any
) -> ClipTable:
    """Read a table like `read_table`, once for a command that asks for the same table many times.

    A command that finds or fetches files builds its stages again, and each time loads the manifest.
    """
    digest = hashlib.file_digest(file, "sha256").digest()
    key = (digest, tuple(classes), tuple(part_columns), *sorted(how.items()))
    if key not in _latest:
        table = read_table(file, classes=classes, part_columns=part_columns, **how)
        _latest.clear()
        _latest[key] = table
    return _latest[key]


def _labels_of(found: set[str], names: Sequence[str], class_count: int) -> dict[str, int]:
    """Return the index of the class for each text of the column ``label`` that means a class.

    Where all texts are indices and not all are names, all are indices: of classes that are called
    1, 2 and 3, the labels 0, 1 and 2 are indices.

    Args:
        found: the texts in the column.
        names: names of the classes that the texts may be, in the order of the classes.
        class_count: number of classes.
    """
    index_of = {composed(name): index for index, name in enumerate(names)}
    by_name = {text: index_of[name] for text in found if (name := composed(text)) in index_of}
    by_number = {
        text: int(text) for text in found if NUMBER.fullmatch(text) and int(text) < class_count
    }
    return by_number if len(by_number) == len(found) > len(by_name) else by_number | by_name


def _short(text: str) -> str:
    """Return the start of a text that a message quotes, with escapes for unprintable characters."""
    return repr(text[:QUOTED_CHARACTERS])[1:-1] + "…" * (len(text) > QUOTED_CHARACTERS)


class _TableReader:
    """Makes columns of the rows of a table, and refuses rows with a mistake.

    Args:
        table: name of the table in error messages.
        header: names of the columns.
        part_columns: names of the columns that hold the parts of a split.
        classes: names of the classes, in the order of their labels.
        labels: index of the class for each text of the column ``label`` that means a class.
    """

    def __init__(
        self,
        table: str,
        header: Sequence[str],
        part_columns: Sequence[str],
        classes: Sequence[str],
        labels: Mapping[str, int],
    ) -> None:
        self._table, self._classes, self._labels = table, classes, labels
        self._fields = len(header)
        self._has_groups = "group" in header
        # Several splits may name one column.
        self._part_columns = [*dict.fromkeys(part_columns)]
        # Values by position are read faster than values by name. Every row gets an empty field in
        # front, which is the value of a column that the table does not have.
        places = ["", *header]
        self._values_of = itemgetter(
            *(places.index(column if column in places else "") for column in COLUMNS),
            *(places.index(column) for column in self._part_columns),
        )

    def clips(self, rows: Iterator[list[str]], count: int, holds_recordings: bool) -> ClipTable:
        """Return the clips of the rows.

        Args:
            rows: the rows.
            count: the number of rows.
            holds_recordings: whether a path may go on inside a file that holds many recordings.

        Raises:
            UserError: a row is cut off or too long, or a value is not allowed.
        """
        keys, labels = empty_texts(count), np.empty(count, np.int32)
        groups = empty_texts(count) if self._has_groups else keys
        parts = {column: np.empty(count, np.uint8) for column in self._part_columns}
        files = [_FileWriter(count, holds_recordings) for _ in range(2)]
        end = 0
        while some := list(islice(rows, ROWS_AT_ONCE)):
            place = slice(end, end := end + len(some))
            if end > count:
                break
            columns = self._columns(some)
            keys[place] = columns[0]
            labels[place] = [self._labels[text] for text in columns[1]]
            if self._has_groups:
                groups[place] = columns[2]
            files[0].write(place, *columns[3:6])
            files[1].write(place, *columns[6:9])
            for codes, texts in zip(parts.values(), columns[9:], strict=True):
                codes[place] = [_CODE_OF_PART[text] for text in texts]
        if end != count:
            raise UserError(f"{self._table}: has changed while it was read; run the command again.")
        audio, visual = (writer.columns() for writer in files)
        return ClipTable(keys, labels, groups, parts, audio, visual)

    def _columns(self, rows: Iterable[list[str]]) -> list[tuple[str, ...]]:
        """Return the columns of some rows, whose values are allowed."""
        values: list[tuple[str, ...]] = []
        try:
            values.extend(map(self._values, rows))
        finally:
            # A mistake in an earlier row is said first.
            columns = [*zip(*values, strict=True)]
            self._require_valid(columns)
        return columns

    def _values(self, row: list[str]) -> tuple[str, ...]:
        """Return the values of `COLUMNS` and of the columns of parts."""
        if len(row) > self._fields:
            raise UserError(
                f"{self._table}: clip {_short(row[0])}: has {len(row)} fields, the header has "
                f"{self._fields}; put a text that holds the separator in quotes."
            )
        try:
            key, *values = self._values_of(["", *row])
        except IndexError:
            raise UserError(
                f"{self._table}: a row is cut off after '{_short(','.join(row))}'."
            ) from None
        return (composed(key), *values)

    def _require_valid(self, columns: Sequence[tuple[str, ...]]) -> None:
        """Refuse the first row with a value that is not allowed.

        Columns are looked at as a whole, which is faster than a look at every row.
        """
        if not columns or (
            all(map(KEY.fullmatch, columns[0]))
            and self._labels.keys() >= set(columns[1])
            and all(map(str.isprintable, columns[2]))
            and all(map(is_plain_path, chain(columns[3], columns[6])))
            and all(map(SHA256.fullmatch, filter(None, chain(columns[4], columns[7]))))
            and all(map(NUMBER.fullmatch, filter(None, chain(columns[5], columns[8]))))
            and _CODE_OF_PART.keys() >= set(chain(*columns[9:]))
        ):
            return
        for values in zip(*columns, strict=True):
            self._refuse_mistakes(*values[:9], parts=values[9:])

    def _refuse_mistakes(
        self, key: str, label: str, group: str, *media: str, parts: Sequence[str]
    ) -> None:
        if not KEY.fullmatch(key):
            raise UserError(f"{self._table}: key '{_short(key)}' is not letters, digits, _ and -.")
        if label not in self._labels:
            near = did_you_mean(label[:QUOTED_CHARACTERS], self._classes)
            raise UserError(
                f"{self._table}: clip {key}: label {_short(label)} is no class; {near}a label is "
                f"the name of a class, or its number from 0 to {len(self._classes) - 1}."
            )
        if not group.isprintable():
            raise UserError(
                f"{self._table}: group '{_short(group)}' of clip {key} holds a character that is "
                "no text."
            )
        if not all(part in PARTS for part in parts):
            found = dict(zip(self._part_columns, map(_short, parts), strict=True))
            raise UserError(
                f"{self._table}: clip {key}: a part is train, val or test, not {found}."
            )
        for path, sha256, size in (media[:3], media[3:]):
            if (sha256 and not SHA256.fullmatch(sha256)) or (size and not NUMBER.fullmatch(size)):
                raise UserError(
                    f"{self._table}: the checksum or the size of {_short(path)} is not valid."
                )
            _require_path_inside(path, self._table)


class _FileWriter:
    """Collects the audio files or the visual files of the clips.

    Args:
        count: number of clips.
        holds_recordings: whether a path may go on inside a file that holds many recordings.
    """

    def __init__(self, count: int, holds_recordings: bool) -> None:
        self._paths = empty_texts(count)
        self._members = empty_texts(count) if holds_recordings else None
        self._sizes = np.empty(count, np.int64)
        # The system gives no memory to zeros before somebody writes other bytes.
        self._sha256 = np.zeros((count, 32), np.uint8)
        self._has_sha256 = np.zeros(count, np.bool_)

    def write(
        self, place: slice, paths: Sequence[str], sha256: Sequence[str], sizes: Sequence[str]
    ) -> None:
        """Write the files of some rows."""
        if self._members is not None:
            paths, members = zip(*map(split_recording, paths), strict=True)
            self._members[place] = members
        self._paths[place] = paths
        self._sizes[place] = [int(size) if size else -1 for size in sizes]
        is_known = np.array([*map(bool, sha256)])
        if is_known.any():
            digests = np.frombuffer(bytes.fromhex("".join(sha256)), np.uint8).reshape(-1, 32)
            self._sha256[place][is_known] = digests
            self._has_sha256[place] = is_known

    def columns(self) -> RecordingColumns:
        """Return the columns."""
        sha256 = self._sha256 if self._has_sha256.any() else None
        return RecordingColumns(self._paths, self._members, self._sizes, sha256, self._has_sha256)


def _require_path_inside(path: str, table: str) -> None:
    """Refuse a path that could name a file outside the folder to which the path is joined.

    Raises:
        UserError: the path is absolute, empty or of Windows, or has ``.`` or ``..`` as a part.
    """
    if not is_plain_path(path):
        raise UserError(f"{table}: '{_short(path)}' is not a path inside the data set's folder.")
