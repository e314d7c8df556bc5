"""The stage engine: what idempotent and resumable mean here.

A stage turns inputs into files by independent units. A unit writes into a scratch folder; its
files are flushed and renamed into place, then its record is appended to the stage's journal. The
journal is the only proof that a unit is done: that a file exists proves nothing. Output files
depend on nothing but the unit, so any number of kills, workers or reruns gives the same bytes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from avsnn.pipeline.engine.files import Folder
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.journal import Failure, Record, read_journal


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work that is done or not done.

    Attributes:
        name: unique in its stage.
        outputs: files it publishes, relative to the stage's folder.
        inputs: everything the outputs depend on besides the stage's settings: JSON values by name.
        work: what ``run`` needs; where None, ``inputs`` is all of it.
    """

    name: str
    outputs: tuple[str, ...]
    inputs: dict[str, Any]
    work: Any = None


@dataclass
class Outcome:
    """What a unit did with its inputs: inputs = written + skipped + failed."""

    written: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)


class Stage(ABC):
    """One stage. Subclasses are frozen dataclasses, so that a worker process can be handed one."""

    name: ClassVar[str]
    version: ClassVar[int]
    prunes: ClassVar[bool] = True
    decodes: ClassVar[bool] = False

    folder: Folder
    state: Path

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings that change the outputs, as JSON values."""

    @abstractmethod
    def units(self) -> list[Unit]:
        """All units, in a fixed order. Reads what earlier stages published."""

    @abstractmethod
    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Writes the unit's outputs below ``scratch``. A clip's failure is part of the outcome."""

    def fingerprint(self, unit: Unit) -> str:
        """Changes exactly when the unit's outputs would."""
        return fingerprint([self.name, self.version, self.settings(), unit.name, unit.inputs])

    @property
    def journal(self) -> Path:
        """File that holds the records."""
        return self.state / f"{self.folder.name}.jsonl"


def records(stage: Stage) -> dict[str, Record]:
    """The journal, last record of each unit; a line torn by a kill counts as never written."""
    try:
        stat = stage.journal.stat()
    except FileNotFoundError:
        return {}
    return dict(read_journal(stage.journal, stat.st_mtime_ns, stat.st_size))
