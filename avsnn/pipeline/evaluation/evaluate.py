"""7. Evaluation: measures the best checkpoint of a run on one part of its split."""

from math import isfinite
from pathlib import Path

import torch

from avsnn.datasets_manifest.clips import Part
from avsnn.errors import RunError
from avsnn.pipeline.engine.atomic_files import (
    read_only_allowed,
    remove_partial_files_of_dead_writers,
    write_atomically,
)
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.evaluation.measures import Evaluation, measure, read_evaluation
from avsnn.pipeline.formats.prepared_json import load_prepared
from avsnn.pipeline.inference.memory import EVALUATION_ADVICE, lack_of_memory_said
from avsnn.pipeline.inference.open_part import open_part
from avsnn.pipeline.loading.dataset import require_same_data
from avsnn.pipeline.runs.stored_run import StoredRun

# Raise this number by hand when the same checkpoint gets other measures than before.
EVALUATE_VERSION = 2


def evaluate(
    folder: Path, *, part: Part, root: Path | None, device: torch.device, progress: Progress
) -> tuple[Evaluation, bool]:
    """Measure the best checkpoint of a run on one part of the split that the run is trained on.

    Args:
        folder: the run folder.
        part: the part to measure on.
        root: the folder that holds the data sets; None takes the folder of the training.
        device: the device that computes.
        progress: told of every clip.

    Returns:
        the evaluation, and whether the evaluation was recorded before and only read again.

    Raises:
        UserError: the folder is not a run, has no checkpoint yet, its data are gone or changed, or
            the evaluation needs more memory than there is.
        RunError: the checkpoint cannot be read, the loss is NaN or infinite, memory ran out, or the
            run folder was deleted meanwhile.
    """
    with lack_of_memory_said(f"{EVALUATION_ADVICE[0].upper()}{EVALUATION_ADVICE[1:]}"):
        return _evaluate(folder, part=part, root=root, device=device, progress=progress)


def _evaluate(
    folder: Path, *, part: Part, root: Path | None, device: torch.device, progress: Progress
) -> tuple[Evaluation, bool]:
    run = StoredRun(folder, root=root)
    config = run.config
    if load_prepared(config.root, config.dataset) is not None:
        # A recorded result says nothing about data that have changed since. Without any data, the
        # recorded result is all that there is.
        require_same_data(config)
    if (before := recorded_evaluation(run, part=part)) is not None:
        return before, True
    with open_part(run, part, device) as opened:
        progress.start(f"evaluate {part}", len(opened.rows), "clips")
        scores = opened.scores(progress=progress)
    progress.stop()
    if not isfinite(scores.loss):
        raise RunError(
            f"{run.checkpoint}: the loss on {part} is NaN or infinite, so there is nothing to "
            "report; train the run again with a lower optimizer.base_lr, or check the data with "
            "'avsnn verify'."
        )
    result = measure(
        config,
        scores,
        part=part,
        epoch=opened.epoch,
        fingerprint=_fingerprint(run, part),
        run=folder,
    )
    if not (folder / "config.yaml").exists():
        raise RunError(f"{folder} was deleted while it was evaluated, so nothing is saved there.")
    path = evaluation_path(folder, part)
    with read_only_allowed():
        remove_partial_files_of_dead_writers(path.parent)
        write_atomically(path, (result.model_dump_json(indent=1) + "\n").encode())
    return result, False


def recorded_evaluation(run: StoredRun, *, part: Part) -> Evaluation | None:
    """Return the recorded evaluation of the present best checkpoint.

    Returns:
        None if there is none, or if the record is damaged or of another version; the same
        measurement then writes the record anew.
    """
    recorded = read_evaluation(evaluation_path(run.folder, part))
    if recorded is None:
        return None
    return recorded if recorded.fingerprint == _fingerprint(run, part) else None


def evaluation_path(folder: Path, part: Part) -> Path:
    """Return the path of the recorded evaluation of a part in a run folder."""
    return folder / "report" / f"{part}.json"


def _fingerprint(run: StoredRun, part: Part) -> str:
    return fingerprint([EVALUATE_VERSION, run.config.data.fingerprint, part, run.digest])
