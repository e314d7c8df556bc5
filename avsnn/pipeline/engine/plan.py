"""The plan of a stage: the one place that decides whether a unit is done or has to run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from avsnn.pipeline.engine.files import why_damaged
from avsnn.pipeline.engine.fingerprint import fingerprint
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
        reason = redo.get(unit.name) or _why_run(stage, unit, last_record, retry_failed)
        if reason:
            reasons[unit.name] = reason
    todo = [unit for unit in units if unit.name in reasons]
    return Plan(units=units, todo=todo, reasons=reasons, last_records=last_records)


def _why_run(stage: Stage, unit: Unit, record: Record | None, retry_failed: bool) -> str:
    """Return the reason to run a unit; empty where there is none. The cheapest check is first."""
    reason = why_stale(stage, unit, record)
    if reason or record is None:
        return reason
    if retry_failed and record.failures:
        return f"failed before: {record.failures[0].reason}"
    for output in record.outputs:
        if damage := why_damaged(stage.folder / output.path, output):
            return f"{output.path} {damage}"
    return ""


def why_stale(stage: Stage, unit: Unit, record: Record | None) -> str:
    """Return why the record of a unit no longer holds; empty where the record holds."""
    if record is None:
        return "not done yet"
    if record.fingerprint == stage.fingerprint(unit):
        return ""
    if record.version != stage.version:
        return (
            "this version of avsnn does this step differently "
            f"({record.version}, now {stage.version})"
        )
    # JSON turns a tuple into a list; the recorded settings have gone through JSON already.
    then, now = record.settings, json.loads(json.dumps(stage.settings()))
    if then != now:
        keys = [key for key in now if then.get(key) != now[key]] or ["settings"]
        return ", ".join(f"{key} was {then.get(key)}, is {now.get(key)}" for key in keys)
    then, now = record.inputs, input_digests(unit)
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    more = f" and {len(changed) - 1:,} more" if len(changed) > 1 else ""
    kind = "new" if changed[0] not in then else "gone" if changed[0] not in now else "changed"
    return f"input {changed[0]} is {kind}{more}"


def input_digests(unit: Unit) -> dict[str, str]:
    """Return a short digest of every input of a unit, by the name of the input."""
    return {name: fingerprint(value)[:8] for name, value in unit.inputs.items()}
