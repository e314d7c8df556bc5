"""Takes units that are the same from an earlier folder of their stage, instead of running them."""

from dataclasses import replace

from avsnn.pipeline.engine.atomic_files import DamagedFileError, publish_again
from avsnn.pipeline.engine.journal import append_records
from avsnn.pipeline.engine.plan import CARRY, DONE, RUN, Plan


def carry_units(plan: Plan) -> None:
    """Publish and record the carried units of a plan, and mark the units in the plan.

    A unit that cannot be carried gets the mark of a unit that has to run.
    """
    stage = plan.stage
    scratch = stage.state / "partial" / "carried"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    with append_records(stage.journal) as append:
        for number, (unit, mark) in enumerate(plan.marked_units()):
            if mark != CARRY:
                continue
            plan.marks[number] = RUN
            if not (carried := plan.carried_from(unit)):
                continue
            folder, record = carried
            try:
                outputs = [
                    publish_again(folder / output.path, stage.folder, name, output, scratch)
                    for output, name in zip(record.outputs, unit.outputs, strict=False)
                ]
            except (FileNotFoundError, DamagedFileError):
                continue
            append(replace(record, outputs=tuple(outputs)))
            plan.marks[number] = DONE
