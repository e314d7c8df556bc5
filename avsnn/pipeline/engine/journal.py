"""The journal of a stage: one line for each unit that is done, the only proof that the unit is."""

import errno
import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avsnn.pipeline.engine.atomic_files import Output

# Time in s between two syncs of the journal to disk. The units whose records a power cut loses are
# done again.
SYNC_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip or file that could not be used.

    Attributes:
        stage: name of the stage that could not use the clip or file.
        key: key of the clip.
        reason: why the clip or file could not be used.
        path: path of the file in the data set; empty where no single file is the reason.
    """

    stage: str
    key: str
    reason: str
    path: str = ""


@dataclass(frozen=True)
class Record:
    """Proof that a unit is done; a line of the journal.

    The fingerprint says whether the record still holds. Version, settings and the digests of the
    inputs tell a user afterwards what changed.

    Attributes:
        unit: name of the unit.
        fingerprint: fingerprint of the unit when the unit was done.
        version: version of the stage's code.
        seconds: how long the unit took, in s.
        settings: the stage's settings, as JSON values.
        inputs: a short digest of each input, by the name of the input.
        outputs: the files that the unit published.
        written: number of inputs that are in the outputs.
        skipped: number of inputs that an earlier stage counted as failed.
        failures: the inputs that could not be used.
        tallies: what else a person should know; see `Outcome.tallies`.
    """

    unit: str
    fingerprint: str
    version: int
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    written: int = 0
    skipped: int = 0
    failures: tuple[Failure, ...] = ()
    tallies: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> bytes:
        """Return the line of the journal, without the fields that are empty or zero.

        The name of the unit comes first: `Records` looks for the name there.
        """
        facts = {name: value for name, value in vars(self).items() if value}
        # A journal has a line for each file, and `asdict` takes as long as the rest of the line.
        if self.outputs:
            facts["outputs"] = [vars(output) for output in self.outputs]
        if self.failures:
            facts["failures"] = [asdict(failure) for failure in self.failures]
        return _with_checksum(json.dumps({"unit": self.unit, "seconds": 0.0} | facts).encode())

    @classmethod
    def from_json(cls, line: bytes) -> "Record":
        """Return the record of one line of the journal.

        Raises:
            KeyError, TypeError, ValueError, RecursionError: the line is torn, or is no record of
                this version, or names an output outside the stage's folder.
        """
        raw = {"outputs": (), "failures": (), **json.loads(_without_checksum(line).decode())}
        raw["outputs"] = tuple(Output(**output) for output in raw["outputs"])
        raw["failures"] = tuple(Failure(**failure) for failure in raw["failures"])
        record = cls(**raw)
        _require_types(record, _RECORD_TYPES)
        for output in record.outputs:
            _require_types(output, _OUTPUT_TYPES)
            _require_path_inside(output.path)
        for failure in record.failures:
            _require_types(failure, _FAILURE_TYPES)
        return record


# The checksum is the last field of a line, so that reading a line need not encode the line again.
_CHECKSUM = b', "checksum": '


def _with_checksum(line: bytes) -> bytes:
    """Return a line of JSON with the CRC-32 of the line as one more field."""
    return line[:-1] + _CHECKSUM + str(zlib.crc32(line)).encode() + b"}"


def _without_checksum(line: bytes) -> bytes:
    """Return a line as it was before `_with_checksum`; the first versions wrote no checksum.

    Raises:
        ValueError: the line holds other bytes than were written.
    """
    head, mark, tail = line.rstrip().rpartition(_CHECKSUM)
    if not mark:
        return line
    if zlib.crc32(head + b"}") != int(tail.removesuffix(b"}")):
        raise ValueError("the line holds other bytes than were written")
    return head + b"}"


_RECORD_TYPES = {
    "unit": str,
    "fingerprint": str,
    "version": int,
    "settings": dict,
    "inputs": dict,
    "written": int,
    "skipped": int,
    "seconds": int | float,
    "tallies": dict,
}
_OUTPUT_TYPES = {"path": str, "size": int, "sha256": str, "mtime_ns": int}
_FAILURE_TYPES = {"stage": str, "key": str, "reason": str, "path": str}


def _require_types(value: object, types: Mapping[str, Any]) -> None:
    """Compare the attributes of a dataclass with their types, which Python does not check.

    A journal has a line for each file of a data set, so a check by pydantic would take too long.
    """
    for name, kind in types.items():
        if not isinstance(getattr(value, name), kind):
            raise TypeError(f"{name} has another type")


def _require_path_inside(path: str) -> None:
    """Refuse a path that could leave the folder to which the path is joined.

    ``prepare`` reads and deletes the files that records name.
    """
    if not {"", ".", ".."}.isdisjoint(path.split("/")) or "\0" in path or "://" in path:
        raise ValueError(f"{path!r} is no path inside a folder")


@dataclass(frozen=True)
class StageCounts:
    """The numbers of a stage; inputs = written + skipped + failed.

    Attributes:
        stage: name of the stage.
        inputs: number of inputs.
        written: number of inputs that are in the outputs.
        skipped: number of inputs that an earlier stage counted as failed.
        failed: number of inputs that could not be used.
        bytes: size of all outputs in bytes.
        units_done_now: number of units that this run did.
        seconds: how long this run worked on the stage, in s.
    """

    stage: str
    inputs: int
    written: int
    skipped: int
    failed: int
    bytes: int
    units_done_now: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class StageSummary:
    """The numbers of a stage's records, and what this run did to get them.

    Attributes:
        stage: name of the stage.
        units: number of records.
        written: number of inputs that are in the outputs.
        skipped: number of inputs that were left out because an earlier stage counted them as
            failed.
        failures: the inputs that could not be used.
        files: number of published files.
        bytes: size of all published files in bytes.
        tallies: the sum of the tallies of all units, by name.
        units_done_now: number of units that this run did.
        seconds: how long this run worked on the stage, in s.
    """

    stage: str
    units: int
    written: int
    skipped: int
    failures: list[Failure]
    files: int
    bytes: int
    tallies: Counter[str]
    units_done_now: int = 0
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Number of inputs that could not be used."""
        return len(self.failures)

    @property
    def inputs(self) -> int:
        """Number of inputs: written, skipped and failed."""
        return self.written + self.skipped + self.failed

    @property
    def counts(self) -> StageCounts:
        """The numbers of this summary, without the failures."""
        return StageCounts(
            stage=self.stage,
            inputs=self.inputs,
            written=self.written,
            skipped=self.skipped,
            failed=self.failed,
            bytes=self.bytes,
            units_done_now=self.units_done_now,
            seconds=self.seconds,
        )


def summarise(stage: str, records: Iterable[Record]) -> StageSummary:
    """Return the summary of some records of a stage; no record is kept.

    Args:
        stage: name of the stage.
        records: the records, in the order in which the summary lists the failures.
    """
    units = written = skipped = files = size = 0
    failures: list[Failure] = []
    tallies: Counter[str] = Counter()
    for record in records:
        units += 1
        written += record.written
        skipped += record.skipped
        failures += record.failures
        files += len(record.outputs)
        size += sum(output.size for output in record.outputs)
        if record.tallies:
            tallies.update(record.tallies)
    return StageSummary(stage, units, written, skipped, failures, files, size, tallies)


@contextmanager
def append_records(journal: Path) -> Iterator[Callable[[Record], None]]:
    """Open a journal, and yield a function that appends one record, whole or not at all.

    The records are synced to disk once a second, and when the context is left.

    Raises:
        OSError: the function finds no room on the disk for a record.
    """
    with journal.open("ab+", buffering=0) as file:
        # A kill can leave a torn last line. The next record starts on a new line, to stay whole.
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")
        last_sync = time.monotonic()

        def append(record: Record) -> None:
            nonlocal last_sync
            size = file.seek(0, os.SEEK_END)
            line = record.as_json() + b"\n"
            if file.write(line) != len(line):
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(journal))
            if time.monotonic() - last_sync > SYNC_INTERVAL_S:
                os.fsync(file.fileno())
                last_sync = time.monotonic()

        yield append
        os.fsync(file.fileno())
