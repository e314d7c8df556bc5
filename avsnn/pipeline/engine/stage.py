"""A stage, its units and their outcomes: what idempotent and resumable mean here.

A stage turns inputs into files by independent units. A unit writes into a scratch folder; its
files are flushed and renamed into place, then its record is appended to the stage's journal. The
journal is the only proof that a unit is done: that a file exists proves nothing. The output files
of a unit depend on nothing but the unit, so any number of kills, workers or reruns gives the same
bytes.
"""

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Folder, Output
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.journal import Failure, Record
from avsnn.pipeline.engine.records import Records, read_journal


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work that is done or not done.

    Attributes:
        name: name of the unit, unique in its stage.
        outputs: paths of the files that the unit publishes, relative to the stage's folder.
        inputs: everything that the outputs depend on besides the stage's settings, as JSON values
            by name.
        work: what ``Stage.run`` needs; None where ``inputs`` is all that ``Stage.run`` needs.
    """

    name: str
    outputs: tuple[str, ...]
    inputs: dict[str, Any]
    work: Any = None


@dataclass
class Outcome:
    """What a unit did with its inputs; the number of inputs is written + skipped + failed.

    Attributes:
        written: number of inputs that are in the outputs.
        skipped: number of inputs that were left out because an earlier stage counted them as
            failed.
        failures: the inputs that could not be used.
        tallies: what else a person should know, by name, such as events outside of a crop.
        digests: SHA-256 of the outputs whose bytes the unit has read anyway, by path; the engine
            reads the other outputs.
    """

    written: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
    tallies: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


class Stage(ABC):
    """A stage. Subclasses are frozen dataclasses, so that a stage can be sent to a worker process.

    Attributes:
        name: name of the stage.
        version: version of the stage's code, raised by hand when the code gives other outputs.
        prunes: whether a run removes the files that only units of an earlier plan wrote.
        decodes: whether units run in worker processes; otherwise units run in threads.
        folder: where the outputs go.
        state: where the journal and the scratch files are kept.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    prunes: ClassVar[bool] = True
    decodes: ClassVar[bool] = False

    folder: Folder
    state: Path

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the settings that change the outputs, as JSON values."""

    @abstractmethod
    def units(self) -> Iterable[Unit]:
        """Yield all units in a fixed order; the method reads what earlier stages published.

        The method is called several times, and nobody holds all units at once.
        """

    @abstractmethod
    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Write the outputs of a unit below ``scratch``.

        A clip that cannot be used is a failure in the outcome, not an exception.
        """

    def fingerprint(self, unit: Unit) -> str:
        """Return the fingerprint of a unit, which changes exactly when the outputs would change."""
        return fingerprint([self.name, self.version, self.settings(), unit.name, unit.inputs])

    def why_source_changed(self, unit: Unit, record: Record) -> str:
        """Return why the source of a unit has changed since its record; empty if it has not.

        Only a stage that brings files from outside has such units.
        """
        return ""

    @property
    def runs_on_cluster(self) -> bool:
        """Whether the workers of a cluster run the units, if a cluster is given."""
        return self.decodes

    @property
    def batch_size(self) -> int:
        """How many units a worker gets at once at most; small units come in large batches."""
        return 1

    @property
    def earlier(self) -> tuple[Folder, ...]:
        """Other folders of this stage, the latest first, whose equal units are taken over."""
        return ()

    @property
    def journal(self) -> Path:
        """The file that holds the records of the units."""
        return self.journal_of(self.folder)

    def journal_of(self, folder: Folder) -> Path:
        """Return the file that holds the records of the units in a folder of this stage."""
        return self.state / f"{folder.name}.jsonl"


def records(stage: Stage, folder: Folder | None = None) -> Records:
    """Return the last record of each unit, by the unit's name, from the journal of a stage.

    Args:
        stage: the stage.
        folder: one of the stage's earlier folders; None takes the present folder.

    Raises:
        UserError: the journal cannot be read.
    """
    journal = stage.journal_of(folder or stage.folder)
    try:
        stat = journal.stat()
        return read_journal(journal, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        # A path that leads nowhere has no journal; a command that writes there says what is wrong.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            return Records()
        raise UserError(f"{journal} cannot be read: {error.strerror}.") from None


def records_of_units(stage: Stage) -> Iterator[Record]:
    """Yield the records of the units of a stage, whether or not the records still hold."""
    recorded = records(stage)
    found = (recorded.get(unit.name) for unit in stage.units())
    return (record for record in found if record)


def outputs_of(stage: Stage) -> Iterator[Output]:
    """Yield the published files of the units of a stage that have a record."""
    return (output for record in records_of_units(stage) for output in record.outputs)
