"""The plan of a stage: which of its units have to run, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from avsnn.pipeline.engine.is_done import why_run
from avsnn.pipeline.engine.journal import Record, StageSummary
from avsnn.pipeline.engine.stage import Stage, Unit, records

# The value of `redo` where no unit has to be done again in any case.
NO_UNITS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Plan:
    """What a stage has done and has to do, in the order of the stage's units.

    Attributes:
        units: all units.
        todo: the units to run.
        reasons: why each unit of ``todo`` has to run, by the unit's name.
        last_records: the last record of each unit that has a record, by the unit's name.
    """

    units: list[Unit]
    todo: list[Unit]
    reasons: dict[str, str]
    last_records: dict[str, Record]

    def up_to_date(self, stage: Stage) -> StageSummary:
        """Return the summary of the units that are done and need not run again."""
        names = (unit.name for unit in self.units if unit.name not in self.reasons)
        return StageSummary(stage.name, tuple(self.last_records[name] for name in names))

    def recorded(self, stage: Stage) -> StageSummary:
        """Return the summary of all units that have a record, whether or not it still holds."""
        names = (unit.name for unit in self.units if unit.name in self.last_records)
        return StageSummary(stage.name, tuple(self.last_records[name] for name in names))


def plan(stage: Stage, *, retry_failed: bool = False, redo: Mapping[str, str] = NO_UNITS) -> Plan:
    """Find the units that are not done, were done from other inputs, or whose files changed.

    Args:
        stage: the stage to plan.
        retry_failed: run the units that recorded failures too.
        redo: units to run in any case, each with its reason, by the unit's name.
    """
    last_records = records(stage)
    units = stage.units()
    reasons = {}
    for unit in units:
        last_record = last_records.get(unit.name)
        reason = redo.get(unit.name) or why_run(stage, unit, last_record, retry_failed)
        if reason:
            reasons[unit.name] = reason
    todo = [unit for unit in units if unit.name in reasons]
    return Plan(units=units, todo=todo, reasons=reasons, last_records=last_records)
