"""Takes units that are the same from an earlier folder of their stage, instead of running them."""

from dataclasses import replace

from avsnn.pipeline.engine.atomic_files import DamagedFileError, publish_again
from avsnn.pipeline.engine.journal import append_records
from avsnn.pipeline.engine.plan import Plan
from avsnn.pipeline.engine.stage import Stage, Unit


def carry_units(stage: Stage, plan: Plan) -> list[Unit]:
    """Publish and record the carried units of a plan; return the units that are still to run."""
    still_to_run = []
    scratch = stage.state / "partial" / "carried"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    with append_records(stage.journal) as append:
        for unit in plan.todo:
            if unit.name not in plan.carried:
                still_to_run.append(unit)
                continue
            folder, record = plan.carried[unit.name]
            try:
                outputs = [
                    publish_again(folder / output.path, stage.folder, name, output, scratch)
                    for output, name in zip(record.outputs, unit.outputs, strict=False)
                ]
            except (FileNotFoundError, DamagedFileError):
                still_to_run.append(unit)
                continue
            append(replace(record, outputs=tuple(outputs)))
    return still_to_run
