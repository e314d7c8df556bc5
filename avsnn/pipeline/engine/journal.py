"""The journal of a stage: one line for every unit that is done, which is the only proof of it."""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from avsnn.pipeline.engine.files import Output


@dataclass(frozen=True)
class Failure:
    """A clip or file that could not be used, and why."""

    stage: str
    key: str
    reason: str
    path: str = ""


@dataclass(frozen=True)
class Record:
    """Proof that a unit is done, one line of the journal.

    The fingerprint says whether it still holds; version, settings and a short hash of each input
    say afterwards what changed.
    """

    unit: str
    fingerprint: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, str]
    outputs: tuple[Output, ...]
    written: int
    skipped: int
    failures: tuple[Failure, ...]
    seconds: float

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Parses one journal line; KeyError, TypeError or ValueError where it is torn."""
        raw = json.loads(line)
        raw["outputs"] = tuple(Output(**output) for output in raw["outputs"])
        raw["failures"] = tuple(Failure(**failure) for failure in raw["failures"])
        return cls(**raw)


@dataclass(frozen=True)
class StageCounts:
    """A stage in figures; inputs = written + skipped + failed."""

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
    """How a stage stands: the records of its units, and what the run did that made it."""

    stage: str
    records: tuple[Record, ...]
    units_done_now: int = 0
    seconds: float = 0.0

    @property
    def written(self) -> int:
        """Inputs that are in the outputs."""
        return sum(record.written for record in self.records)

    @property
    def skipped(self) -> int:
        """Inputs left out because an earlier stage counted them as failed."""
        return sum(record.skipped for record in self.records)

    @property
    def failures(self) -> list[Failure]:
        """Inputs that could not be used."""
        return [failure for record in self.records for failure in record.failures]

    @property
    def failed(self) -> int:
        """How many these are."""
        return sum(len(record.failures) for record in self.records)

    @property
    def inputs(self) -> int:
        """Everything that went in."""
        return self.written + self.skipped + self.failed

    @property
    def outputs(self) -> list[Output]:
        """All published files."""
        return [output for record in self.records for output in record.outputs]

    @property
    def bytes(self) -> int:
        """Size of these."""
        return sum(output.size for record in self.records for output in record.outputs)

    @property
    def counts(self) -> StageCounts:
        """All of it in figures."""
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


@lru_cache(maxsize=8)
def read_journal(journal: Path, mtime_ns: int, size: int) -> dict[str, Record]:
    """Several stages ask for the same journal, which has a line per file of a data set."""
    found: dict[str, Record] = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        with suppress(KeyError, TypeError, ValueError):
            record = Record.from_json(line)
            found[record.unit] = record
    return found


@contextmanager
def append_records(journal: Path) -> Iterator[Callable[[Record], None]]:
    """Appends records, each whole or not at all; synced to disk once a second and at the end."""
    with journal.open("ab+", buffering=0) as file:
        # A kill can leave a torn last line; starting on a fresh one keeps the next record whole.
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")
        synced = time.monotonic()

        def append(record: Record) -> None:
            nonlocal synced
            size = file.seek(0, os.SEEK_END)
            line = json.dumps(asdict(record)).encode() + b"\n"
            if file.write(line) != len(line):
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(journal))
            if time.monotonic() - synced > 1:
                os.fsync(file.fileno())
                synced = time.monotonic()

        yield append
        os.fsync(file.fileno())
