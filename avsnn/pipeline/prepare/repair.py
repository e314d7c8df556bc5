"""Makes again exactly what a verification found damaged."""

from collections import defaultdict
from collections.abc import Callable

from avsnn.pipeline.engine.atomic_files import locate
from avsnn.pipeline.engine.journal import StageSummary
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.formats.prepared_json import Prepared
from avsnn.pipeline.prepare.build_stages import DatasetStages
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.verify import Verification


def repair(
    stages: DatasetStages,
    verification: Verification,
    *,
    delete_unknown: bool,
    workers: int | None,
    progress: Progress,
    on_stage: Callable[[StageSummary], None],
) -> Prepared:
    """Run exactly the damaged units again, and remove what killed runs left over.

    Args:
        stages: the stages that were verified.
        verification: the result of the verification.
        delete_unknown: delete the files among the outputs that no stage wrote, too.
        workers: number of processes that decode; None takes one per core, 0 works in this process.
        progress: told of every unit.
        on_stage: called with the summary of each stage as the stage ends.

    Raises:
        RunError: a stage failed, or more clips failed than allowed.
        UserError: the disk is full, or another run writes here.
    """
    redo: dict[str, dict[str, str]] = defaultdict(dict)
    for damage in verification.damages:
        if damage.unit:
            redo[damage.stage][damage.unit] = damage.reason
        elif damage.kind == "left-over" or (damage.kind == "unknown" and delete_unknown):
            locate(stages.folder, damage.path).unlink(missing_ok=True)
    return prepare(stages, workers=workers, progress=progress, redo=redo, on_stage=on_stage)
