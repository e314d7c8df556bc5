"""Decides whether a unit is done; this file is the one place that decides."""

import json
from typing import Any

from avsnn.pipeline.engine.atomic_files import Folder, why_damaged
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.journal import Record
from avsnn.pipeline.engine.stage import Stage, Unit

# Ends of the names of small files without checksums inside. Later stages are planned from what
# these files say.
PLANNED_FROM = (".json", ".jsonl", ".csv", ".npz")


def why_run(
    stage: Stage,
    unit: Unit,
    record: Record | None,
    retry_failed: bool,
    folder: Folder | None = None,
) -> str:
    """Return the reason to run a unit; empty if the unit is done. The cheapest check is first.

    Args:
        stage: the stage of the unit.
        unit: the unit.
        record: the last record of the unit; None if there is no record.
        retry_failed: run a unit whose record has failures.
        folder: the folder of the record; None takes the stage's present folder.
    """
    reason = why_stale(stage, unit, record)
    if reason or record is None:
        return reason
    if retry_failed and record.failures:
        return f"failed before: {record.failures[0].reason}"
    for output in record.outputs:
        path = (folder or stage.folder) / output.path
        if damage := why_damaged(path, output, rehash=output.path.endswith(PLANNED_FROM)):
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
    kind = "is new" if changed[0] not in then else "is gone" if changed[0] not in now else "changed"
    return f"its input {changed[0]} {kind}{more}"


def input_digests(unit: Unit) -> dict[str, str]:
    """Return a short digest of every input of a unit, by the name of the input."""
    return {name: digest_of(value) for name, value in unit.inputs.items()}


def digest_of(value: Any) -> str:
    """Return a short digest of an input of a unit."""
    return fingerprint(value)[:8]
