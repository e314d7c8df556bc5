"""What is done and what is to do: the one place that decides whether a unit is done."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from avsnn.pipeline.engine.files import why_damaged
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.journal import Record, StageSummary
from avsnn.pipeline.engine.stage import Stage, Unit, records

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Plan:
    """What a stage has done and has to do, in the units' own order.

    Attributes:
        units: all of them.
        todo: those to run.
        reasons: why each of these has to run, by name.
        done: the last record of each unit that has one.
    """

    units: list[Unit]
    todo: list[Unit]
    reasons: dict[str, str]
    done: dict[str, Record]

    def up_to_date(self, stage: Stage) -> StageSummary:
        """What is done and still holds."""
        kept = (unit.name for unit in self.units if unit.name not in self.reasons)
        return StageSummary(stage.name, tuple(self.done[name] for name in kept))

    def recorded(self, stage: Stage) -> StageSummary:
        """What was done at some time, whether or not it still holds."""
        names = (unit.name for unit in self.units if unit.name in self.done)
        return StageSummary(stage.name, tuple(self.done[name] for name in names))


def plan(stage: Stage, *, retry_failed: bool = False, redo: Mapping[str, str] = NOTHING) -> Plan:
    """Finds the units that are not done, were done from other inputs, or whose files changed.

    Args:
        stage: whose units.
        retry_failed: also those that recorded failures.
        redo: also these, by name, each with its reason.
    """
    known = records(stage)
    units = stage.units()
    reasons = {}
    for unit in units:
        why = redo.get(unit.name) or _why_run(stage, unit, known.get(unit.name), retry_failed)
        if why:
            reasons[unit.name] = why
    todo = [unit for unit in units if unit.name in reasons]
    return Plan(units=units, todo=todo, reasons=reasons, done=known)


def input_digests(unit: Unit) -> dict[str, str]:
    """Return a short digest of every input of a unit, by the name of the input."""
    return {name: fingerprint(value)[:8] for name, value in unit.inputs.items()}


def _why_run(stage: Stage, unit: Unit, record: Record | None, retry_failed: bool) -> str:
    """The reason to run a unit, cheapest check first; empty where there is none."""
    why = why_stale(stage, unit, record)
    if why or record is None:
        return why
    if retry_failed and record.failures:
        return f"failed before: {record.failures[0].reason}"
    for output in record.outputs:
        if why := why_damaged(stage.folder / output.path, output):
            return f"{output.path} {why}"
    return ""


def why_stale(stage: Stage, unit: Unit, record: Record | None) -> str:
    """What makes a unit's record not hold any more; empty where it holds."""
    if record is None:
        return "not done yet"
    if record.fingerprint == stage.fingerprint(unit):
        return ""
    if record.version != stage.version:
        return f"this version of avsnn does it differently ({record.version}, now {stage.version})"
    # As the journal holds them: a tuple comes back from it as a list.
    then, now = record.settings, json.loads(json.dumps(stage.settings()))
    if then != now:
        keys = [key for key in now if then.get(key) != now[key]] or ["settings"]
        return ", ".join(f"{key} was {then.get(key)}, is {now.get(key)}" for key in keys)
    then, now = record.inputs, input_digests(unit)
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    more = f" and {len(changed) - 1:,} more" if len(changed) > 1 else ""
    kind = "new" if changed[0] not in then else "gone" if changed[0] not in now else "changed"
    return f"input {changed[0]} is {kind}{more}"
