"""The plan of a stage: which of its units have to run, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.engine.is_done import why_run, why_stale
from avsnn.pipeline.engine.journal import Record, StageSummary
from avsnn.pipeline.engine.stage import Stage, Unit, records

# The value of `redo` where no unit has to be done again in any case.
NO_UNITS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Plan:
    """What a stage has done and has to do, in the order of the stage's units.

    Attributes:
        units: all units.
        todo: the units that are not done.
        reasons: why each unit of ``todo`` is not done, by the unit's name.
        carried: for each unit of ``todo`` whose files are in an earlier folder of the stage, this
            folder and the record there, by the unit's name; such a unit need not run.
        last_records: the last record of each unit that has a record, by the unit's name.
    """

    units: list[Unit]
    todo: list[Unit]
    reasons: dict[str, str]
    carried: dict[str, tuple[Folder, Record]]
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
    units = list(stage.units())
    redo = {**stage.changed_sources(), **redo}
    reasons = {}
    for unit in units:
        last_record = last_records.get(unit.name)
        reason = redo.get(unit.name) or why_run(stage, unit, last_record, retry_failed)
        if reason:
            reasons[unit.name] = reason
    todo = [unit for unit in units if unit.name in reasons]
    carried: dict[str, tuple[Folder, Record]] = {}
    if todo:
        earlier = [(folder, records(stage, folder)) for folder in stage.earlier]
        for unit in todo:
            if unit.name not in last_records and unit.name not in redo:
                _look_in_earlier(stage, unit, earlier, retry_failed, reasons, carried)
    return Plan(units, todo, reasons, carried, last_records)


def _look_in_earlier(
    stage: Stage,
    unit: Unit,
    earlier: list[tuple[Folder, dict[str, Record]]],
    retry_failed: bool,
    reasons: dict[str, str],
    carried: dict[str, tuple[Folder, Record]],
) -> None:
    """Look for a unit in the earlier folders, and note what the unit was there.

    Args:
        stage: the stage of the unit.
        unit: a unit without a record in the present folder.
        earlier: the earlier folders with their records, the latest first.
        retry_failed: do not take a unit whose record has failures.
        reasons: gets why the unit is not the same as in the latest folder that has the unit.
        carried: gets the folder that has the same unit.
    """
    found = [(folder, recorded[unit.name]) for folder, recorded in earlier if unit.name in recorded]
    for folder, record in found:
        if not why_run(stage, unit, record, retry_failed, folder):
            carried[unit.name] = folder, record
            reasons[unit.name] = f"is in {folder.name} already"
            return
    if found:
        reasons[unit.name] = why_stale(stage, unit, found[0][1]) or reasons[unit.name]
