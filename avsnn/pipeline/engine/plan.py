"""The plan of a stage: which of its units have to run, and why."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from types import MappingProxyType

from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.engine.is_done import why_run, why_stale
from avsnn.pipeline.engine.journal import Record, summarise
from avsnn.pipeline.engine.records import Records
from avsnn.pipeline.engine.stage import Stage, Unit, records
from avsnn.pipeline.engine.stores import listed

# The value of `redo` where no unit has to be done again in any case.
NO_UNITS: Mapping[str, str] = MappingProxyType({})

# The marks of units. A carried unit is not done, and its files are in an earlier folder of the
# stage, so the unit need not run.
DONE, RUN, CARRY = range(3)


class Plan:
    """What a stage has done and has to do.

    A plan keeps one byte for each unit. Units, records and reasons are made again when they are
    asked for.

    Args:
        stage: the stage.
        retry_failed: run the units that recorded failures too.
        redo: units to run in any case, each with its reason, by the unit's name.

    Attributes:
        stage: the stage.
        marks: `DONE`, `RUN` or `CARRY` for each unit, in the order of the stage's units.
        up_to_date: the summary of the units that are done and need not run again.
    """

    def __init__(self, stage: Stage, *, retry_failed: bool, redo: Mapping[str, str]) -> None:
        self.stage = stage
        self._retry_failed = retry_failed
        self._redo = redo
        self._records = records(stage)
        self.marks = bytearray()
        with listed(stage.folder):
            self.up_to_date = summarise(stage.name, self._find_done())

    def _find_done(self) -> Iterator[Record]:
        """Mark all units, and yield the records of the units that are done."""
        for unit in self.stage.units():
            last_record = self._records.get(unit.name)
            mark, _ = self._look_at(unit, last_record)
            self.marks.append(mark)
            if mark == DONE and last_record:
                yield last_record

    @property
    def unit_count(self) -> int:
        """Number of all units."""
        return len(self.marks)

    @property
    def todo_count(self) -> int:
        """Number of units that are not done."""
        return len(self.marks) - self.marks.count(DONE)

    @property
    def carried_count(self) -> int:
        """Number of units that are not done, and whose files are in an earlier folder."""
        return self.marks.count(CARRY)

    def todo(self) -> Iterator[Unit]:
        """Yield the units that are not done."""
        return (unit for unit, mark in self.marked_units() if mark != DONE)

    def marked_units(self) -> Iterator[tuple[Unit, int]]:
        """Yield every unit with its mark."""
        return zip(self.stage.units(), self.marks, strict=True)

    def reasons(self) -> Iterator[tuple[str, str]]:
        """Yield the name of each unit that is not done, and why the unit is not done."""
        for unit in self.todo():
            yield unit.name, self._look_at(unit, self._records.get(unit.name))[1]

    def carried_from(self, unit: Unit) -> tuple[Folder, Record] | None:
        """Return the earlier folder that holds the files of a unit, and the record there."""
        for folder, record in self._records_in_earlier(unit):
            if not why_run(self.stage, unit, record, self._retry_failed, folder):
                return folder, record
        return None

    def _look_at(self, unit: Unit, last_record: Record | None) -> tuple[int, str]:
        """Return the mark of a unit, and why the unit is not done."""
        if reason := self._redo.get(unit.name):
            return RUN, reason
        if last_record and (reason := self.stage.why_source_changed(unit, last_record)):
            return RUN, reason
        reason = why_run(self.stage, unit, last_record, self._retry_failed)
        if last_record is None and self._earlier:
            if carried := self.carried_from(unit):
                return CARRY, f"is in {carried[0].name} already"
            if found := next(self._records_in_earlier(unit), None):
                reason = why_stale(self.stage, unit, found[1]) or reason
        return (RUN if reason else DONE), reason

    @cached_property
    def _earlier(self) -> list[tuple[Folder, Records]]:
        """The earlier folders of the stage with their records, the latest first."""
        return [(folder, records(self.stage, folder)) for folder in self.stage.earlier]

    def _records_in_earlier(self, unit: Unit) -> Iterator[tuple[Folder, Record]]:
        """Yield the earlier folders that have a record of a unit, with the record."""
        for folder, recorded in self._earlier:
            if record := recorded.get(unit.name):
                yield folder, record


def plan(stage: Stage, *, retry_failed: bool = False, redo: Mapping[str, str] = NO_UNITS) -> Plan:
    """Find the units that are not done, were done from other inputs, or whose files changed.

    Args:
        stage: the stage to plan.
        retry_failed: run the units that recorded failures too.
        redo: units to run in any case, each with its reason, by the unit's name.
    """
    return Plan(stage, retry_failed=retry_failed, redo=redo)
