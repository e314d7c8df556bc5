"""The records of a journal, which are read one by one from the file.

A journal has a line for each file of a data set, so the records of a whole journal would fill the
memory. `Records` keeps three numbers for each line, and reads a line when its record is asked for.
"""

import json
import re
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.engine.journal import Record

# The start of a line, with the name of the unit as a text of JSON.
_UNIT = re.compile(rb'\{"unit": "((?:[^"\\]|\\.)*)"')

# What a line raises that a kill has torn, or that is no record of this version.
_NO_RECORD = (KeyError, TypeError, ValueError, RecursionError)

# So many bytes of a journal are read at once. Units are asked for in about the order of the file.
BLOCK = 1 << 16

# The records of so many journals stay in memory: several stages ask for the same journal.
_MOST_OPEN = 16

_open: OrderedDict[Path, tuple[tuple[int, int], "Records"]] = OrderedDict()


class Records(Mapping[str, Record]):
    """The last record of each unit of a journal, by the unit's name.

    A line that a kill has torn, or that is no record of this version, counts as never written.
    What is appended to the journal after the records were opened does not count either.

    Args:
        journal: the file; None stands for a journal of no records.
    """

    def __init__(self, journal: Path | None = None) -> None:
        self._journal = journal
        hashes, offsets, lengths = array("q"), array("q"), array("q")
        self._block = 0, b""
        if journal is not None:
            with journal.open("rb") as lines:
                offset = 0
                for line in lines:
                    if (name := _unit_of(line)) is not None:
                        hashes.append(hash(name))
                        offsets.append(offset)
                        lengths.append(len(line))
                    offset += len(line)
        # Lines of one unit stay in the order of the file, because the sort is stable.
        order = np.argsort(np.array(hashes, np.int64), kind="stable")
        self._hashes, self._offsets, self._lengths = (
            np.array(column, np.int64)[order].data for column in (hashes, offsets, lengths)
        )

    def __getitem__(self, unit: str) -> Record:
        """Return the last record of a unit."""
        return self._find(unit)[1]

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the units, in the order of the file."""
        return (record.unit for record in self._stream())

    def __len__(self) -> int:
        """Return the number of units, after a look at every line."""
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        """Return whether there is a record."""
        return next(iter(self), None) is not None

    def values(self) -> ValuesView[Record]:
        """Return the records, which are read one by one in the order of the file."""
        return _RecordValues(self)

    def items(self) -> ItemsView[str, Record]:
        """Return names and records, which are read one by one in the order of the file."""
        return _RecordItems(self)

    def of_other_units(self, names: Iterable[str]) -> Iterator[Record]:
        """Yield the records of all units except the named units."""
        named = np.fromiter(map(hash, names), np.int64)
        return self._stream(np.isin(np.asarray(self._hashes), named, invert=True))

    def _stream(self, wanted: NDArray[np.bool_] | None = None) -> Iterator[Record]:
        """Yield the last record of each unit in the order of the file.

        Args:
            wanted: the lines to look at; None looks at all lines.
        """
        hashes = np.asarray(self._hashes)
        again = np.zeros(len(hashes), np.bool_)
        again[1:] = hashes[1:] == hashes[:-1]
        again[:-1] |= again[1:].copy()
        lines = np.argsort(np.asarray(self._offsets))
        if wanted is not None:
            lines = lines[wanted[lines]]
        for number in map(int, lines):
            with suppress(*_NO_RECORD):
                record = Record.from_json(self._read(number))
                if not again[number] or self._find(record.unit)[0] == number:
                    yield record

    def _find(self, unit: str) -> tuple[int, Record]:
        """Return the last record of a unit, and the number of its line among the hashes.

        Raises:
            KeyError: the unit has no record.
        """
        wanted = hash(unit)
        first = last = bisect_left(self._hashes, wanted)
        while last < len(self._hashes) and self._hashes[last] == wanted:
            last += 1
        for number in range(last - 1, first - 1, -1):
            with suppress(*_NO_RECORD):
                record = Record.from_json(self._read(number))
                # Two names may have one hash.
                if record.unit == unit:
                    return number, record
        raise KeyError(unit)

    def _read(self, number: int) -> bytes:
        assert self._journal is not None  # noqa: S101 - a journal of no records has no lines
        offset, length = self._offsets[number], self._lengths[number]
        start, block = self._block
        if offset < start or offset + length > start + len(block):
            start = max(0, offset - BLOCK // 4)
            # The file does not stay open: an open file keeps a disk from being unmounted.
            with self._journal.open("rb", buffering=0) as file:
                file.seek(start)
                block = file.read(offset - start + max(length, BLOCK))
            self._block = start, block
        return block[offset - start : offset - start + length]


class _RecordValues(ValuesView[Record]):
    """The records of a journal; the general view would look for each record by its name."""

    _mapping: Records

    def __iter__(self) -> Iterator[Record]:
        return self._mapping._stream()


class _RecordItems(ItemsView[str, Record]):
    """Names and records of a journal."""

    _mapping: Records

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        return ((record.unit, record) for record in self._mapping._stream())


def _unit_of(line: bytes) -> str | None:
    """Return the name of the unit of a line; None for a line that is no record.

    `Record.from_json` checks a line later, when the record is asked for.
    """
    match = _UNIT.match(line)
    try:
        if match is None:
            return Record.from_json(line).unit
        name = match[1]
        return str(json.loads(b'"%s"' % name)) if b"\\" in name else name.decode()
    except _NO_RECORD:
        return None


def read_journal(journal: Path, mtime_ns: int, size: int) -> Records:
    """Return the records of a journal.

    The records stay in memory, because several stages ask for the same journal.

    Args:
        journal: the file.
        mtime_ns: time of the file's last change in ns; a changed file is read again.
        size: size of the file in bytes, for the same purpose.
    """
    state, found = _open.pop(journal, (None, None))
    if found is None or state != (mtime_ns, size):
        found = Records(journal)
    _open[journal] = (mtime_ns, size), found
    while len(_open) > _MOST_OPEN:
        _open.popitem(last=False)
    return found
