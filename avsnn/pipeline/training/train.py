"""6. Training: from the configuration of a run to its finished run folder."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avsnn.errors import InterruptError, PreemptedError, UserError
from avsnn.pipeline.engine.atomic_files import (
    is_partial,
    remove_partial_files_of_dead_writers,
)
from avsnn.pipeline.engine.lock import lock_folder
from avsnn.pipeline.engine.progress import CourseOfWork, Progress
from avsnn.pipeline.inference.device import bfloat16_advice
from avsnn.pipeline.inference.memory import TRAINING_ADVICE, lack_of_memory_said
from avsnn.pipeline.runs.config import RunConfig, require_same, save_config
from avsnn.pipeline.runs.metrics import best_epoch, read_metrics
from avsnn.pipeline.runs.plugin import plugin_faults_said, save_copies
from avsnn.pipeline.training.distributed import join_process_group
from avsnn.pipeline.training.oddities import oddities
from avsnn.pipeline.training.options import RunOptions
from avsnn.pipeline.training.outcome import doubt_about
from avsnn.pipeline.training.resume import START, resume_points
from avsnn.pipeline.training.sigterm import watch_for_sigterm
from avsnn.pipeline.training.training_loop import TrainingLoop

# The file in a run folder where a command that trains several runs at once keeps what is said.
LOG = "log.txt"


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        folder: the run folder.
        epochs: number of epochs trained in this call; 0 if the run was finished before.
        metrics: the lines of ``metrics.jsonl``.
        best: the line of the epoch that ``best.safetensors`` holds.
        seconds: duration of this call in s.
    """

    folder: Path
    epochs: int
    metrics: list[dict[str, Any]]
    best: dict[str, Any]
    seconds: float


def train(
    config: RunConfig,
    *,
    folder: Path,
    options: RunOptions,
    progress: Progress,
    say: Callable[[str], None],
) -> TrainingResult:
    """Train a run to its end, together with the other processes that torchrun started.

    Args:
        config: the configuration of the run.
        folder: the run folder; made here.
        options: device, data source and how often to save.
        progress: told of every step.
        say: gets one sentence at a time that a person should read.

    Raises:
        UserError: the folder holds another run, or an unfinished one and ``resume`` is off; the
            network cannot take the images; a batch is larger than the training part; the code of
            a plugin raised an exception.
        RunError: an input, the loss, the gradient or a weight is NaN or infinite, memory ran out,
            or the folder was deleted meanwhile.
        PreemptedError: SIGTERM came; the training is saved as far as it came.
        InterruptError: Ctrl-C came; the training is saved up to the last resume point.
    """
    try:
        with plugin_faults_said(config.settings.model.method):
            return _train(config, folder, options, progress, say)
    except KeyboardInterrupt:
        raise InterruptError(f"interrupted; {_what_is_saved(folder)}") from None
    except PreemptedError:
        raise PreemptedError(f"told to end; {_what_is_saved(folder)}") from None


def _what_is_saved(folder: Path) -> str:
    """Return what is saved of a training that was stopped, and how to go on."""
    newest = max(resume_points(folder / "checkpoints"), default=START)
    if newest == START:
        return (
            f"nothing of {folder} is saved yet. Run the same command again (train: with --resume) "
            "to start from the first step."
        )
    return (
        f"saved after {newest.epoch} epochs and {newest.step} steps. Run the same command again "
        "(train: with --resume) to go on from there."
    )


def _train(
    config: RunConfig,
    folder: Path,
    options: RunOptions,
    progress: Progress,
    say: Callable[[str], None],
) -> TrainingResult:
    began = time.monotonic()
    what_now = f"Finished epochs are saved; {TRAINING_ADVICE}"
    with join_process_group(options.device) as group, lack_of_memory_said(what_now):
        done = group.on_main(lambda: _finished_epochs(config, folder, resume=options.resume))
        if done < config.settings.epochs:
            is_new = group.is_main and not (folder / "config.yaml").exists()
            if options.resume and is_new:
                start = f"nothing to resume in {folder}: starting from the first epoch"
                say(CourseOfWork(start))
            # The loop comes before the first file, because the loop refuses settings that
            # make no network or ask for more than there is.
            loop = TrainingLoop(config, folder, options, group, progress, say)
            if is_new:
                for sentence in oddities(config.settings, steps_per_epoch=loop.steps):
                    say(sentence)
            if is_new and (advice := bfloat16_advice(config.settings, options.device)):
                say(CourseOfWork(advice))
            lock: AbstractContextManager[None] = (
                lock_folder(folder) if group.is_main else nullcontext()
            )
            with lock, loop.loader, closing(loop):
                if group.is_main and not (folder / "config.yaml").exists():
                    shapes = loop.loader.source.shapes
                    save_config(folder, config.model_copy(update={"shapes": shapes}))
                if group.is_main:
                    save_copies(folder, config.plugins)
                with watch_for_sigterm() as sigterm:
                    done = loop.run(sigterm)
                if group.is_main and (doubt := _doubt(loop)):
                    say(doubt)
        metrics = group.on_main(lambda: read_metrics(folder, config.settings.selection))
        return TrainingResult(
            folder=folder,
            epochs=config.settings.epochs - done,
            metrics=metrics,
            best=best_epoch(metrics, config.settings.selection),
            seconds=time.monotonic() - began,
        )


def _doubt(loop: TrainingLoop) -> str:
    """Return what is doubtful about a training that has ended; empty if nothing."""
    labels, rows = None, loop.selection_rows
    if rows is not None:
        labels = loop.loader.source.labels[torch.from_numpy(rows)]
    return doubt_about(loop.metrics, loop.settings, steps_per_epoch=loop.steps, labels=labels)


def require_free(folder: Path) -> None:
    """Refuse a folder without config.yaml that holds other files.

    Raises:
        UserError: the folder holds other files, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file and no folder; choose another --run.")
    # A training that was killed or found no room while it wrote config.yaml leaves these files.
    if folder.exists() and not all(
        path.name in (".lock", LOG) or is_partial(path) for path in folder.iterdir()
    ):
        raise UserError(f"{folder} holds other files and is no run; choose another --run.")


def _finished_epochs(config: RunConfig, folder: Path, *, resume: bool) -> int:
    """Return the number of finished epochs in a run folder, if this run may go on there."""
    if not (folder / "config.yaml").exists():
        require_free(folder)
        return 0
    require_same(config, folder)
    done = len(read_metrics(folder, config.settings.selection))
    if done < config.settings.epochs and not resume:
        raise UserError(
            f"{folder} holds this run, unfinished ({done} of {config.settings.epochs} epochs); "
            "add --resume to go on with it, or choose another --run."
        )
    if done >= config.settings.epochs:
        # A training that was killed while it wrote its last resume point has all its epochs, and
        # never takes the lock again, under which a training removes such files.
        remove_partial_files_of_dead_writers(folder / "checkpoints")
    return done
