"""10. Reproduction: trains and evaluates every row of a table with every seed.

The runs are runs of ``avsnn train``, and are found again by their settings. Tables therefore share
runs, a finished run is skipped, and an interrupted run goes on.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.atomic_files import DiskFullError
from avsnn.pipeline.engine.lock import BusyError
from avsnn.pipeline.engine.progress import CourseOfWork, NoProgress, Progress
from avsnn.pipeline.evaluation.evaluate import evaluate
from avsnn.pipeline.experiments.child_trainings import train_at_once
from avsnn.pipeline.experiments.compared_table import compare_rows
from avsnn.pipeline.experiments.experiment import (
    Ended,
    Experiment,
    HowToRun,
    Plan,
    RunState,
    busy_error,
    reason_of,
)
from avsnn.pipeline.experiments.table_text import FilledTable, write_table
from avsnn.pipeline.experiments.tables import ReproducedRow, ReproducedTable, TableRow
from avsnn.pipeline.experiments.time_left import TimeLeft, duration
from avsnn.pipeline.inference.device import choose_device
from avsnn.pipeline.training.options import RunOptions
from avsnn.pipeline.training.train import train


def reproduce(
    plan: Plan,
    how: HowToRun,
    *,
    jobs: int,
    progress: Progress,
    say: Callable[[str], None],
) -> FilledTable:
    """Train and evaluate the runs that are missing, and write the table after every run.

    A run that cannot be read or does not succeed is said, and hides no other run.

    Args:
        plan: the table.
        how: how the runs are carried out; a run that exists is resumed.
        jobs: number of trainings at the same time; a single training runs in this process.
        progress: told of every step and every clip, or of every epoch if ``jobs`` is above 1.
        say: gets one sentence at a time that a person should read.

    Raises:
        UserError: torch sees no CUDA device, and the device must be one.
        RunError: the disk is full, or another command trains one of the runs.
        PreemptedError: SIGTERM came; the trainings are saved as far as they came.
    """
    device = choose_device(how.device)
    states = plan.states()
    missing = plan.missing(states)
    left = TimeLeft(missing, jobs)
    if jobs > 1:
        trainings = train_at_once(missing, jobs=jobs, how=how, progress=progress, say=say)
        progress = NoProgress()
    else:
        options = RunOptions(device=device, workers=how.workers, save_every=how.save_every)
        trainings = _train_in_turn(missing, options, progress, say)
    with closing(trainings):
        for ended in trainings:
            experiment = ended.experiment
            failure = ended.failure or _failure_of_evaluation(experiment, device, progress)
            state = experiment.state()
            if failure:
                state = state._replace(failure=failure)
                outcome = f"failed: {failure}"
            else:
                outcome = f"{state.top1:.2f} % in {duration(ended.seconds)}"
            states[experiment.folder] = state
            say(f"{experiment.name}: {outcome}{left.after(ended)}")
            write_table(summarise(plan, states), plan.runs)
    found = summarise(plan, states)
    write_table(found, plan.runs)
    return found


def _train_in_turn(
    experiments: Sequence[Experiment],
    options: RunOptions,
    progress: Progress,
    say: Callable[[str], None],
) -> Generator[Ended]:
    """Train runs in this process; yield each run when its training has ended."""
    for number, experiment in enumerate(experiments, start=1):
        say(CourseOfWork(f"{experiment.name} ({number} of {len(experiments)})"))
        folder, began, failure = experiment.folder, time.monotonic(), ""
        try:
            train(
                experiment.config,
                folder=folder,
                options=replace(options, resume=folder.exists()),
                progress=progress,
                say=say,
            )
        except BusyError:
            raise busy_error(folder) from None
        except DiskFullError:
            raise
        except (UserError, RunError, OSError) as error:
            failure = reason_of(error)
        yield Ended(experiment, time.monotonic() - began, failure)


def _failure_of_evaluation(experiment: Experiment, device: torch.device, progress: Progress) -> str:
    """Evaluate a run; return why the evaluation did not succeed, or an empty text."""
    try:
        evaluate(
            experiment.folder,
            part="test",
            root=None,
            device=device,
            progress=progress,
            robustness=bool(experiment.noise),
            insight=bool(experiment.noise),
        )
    except DiskFullError:
        raise
    except (UserError, RunError, OSError) as error:
        return reason_of(error)
    return ""


def summarise(plan: Plan, states: Mapping[Path, RunState]) -> FilledTable:
    """Return the table as far as its runs are finished.

    Args:
        plan: the table.
        states: the state of each run, by its folder.
    """
    if plan.table.against is not None:
        return compare_rows(plan, states, against=plan.table.against)
    experiments = plan.experiments
    configs = [experiment.config for experiment in experiments]
    dataset = configs[0].dataset
    rows = {experiment.row.name: experiment.row for experiment in experiments}
    guessing = {state.guessing for state in states.values() if state.guessing is not None}
    return ReproducedTable(
        table=plan.table.name,
        title=plan.table.title,
        dataset=dataset,
        split=" or ".join(dict.fromkeys(config.split for config in configs)),
        selection=" or ".join(dict.fromkeys(config.settings.selection for config in configs)),
        changed=plan.changes.words,
        guessing=guessing.pop() if len(guessing) == 1 else None,
        lines=[
            _summarise_row(
                row,
                {e.seed: (e, states[e.folder]) for e in experiments if e.row == row},
                dataset,
            )
            for row in rows.values()
        ],
    )


def _summarise_row(
    row: TableRow, runs: Mapping[int, tuple[Experiment, RunState]], dataset: str
) -> ReproducedRow:
    finished = [state.top1 for _, state in runs.values() if state.top1 is not None]
    published: Any = row.published.get(dataset)
    if isinstance(published, dict):
        published = mean(published.values())
    return ReproducedRow(
        name=row.name,
        preset=row.preset,
        settings=row.settings,
        runs={seed: str(experiment.folder) for seed, (experiment, _) in runs.items()},
        epochs={seed: state.epochs for seed, (_, state) in runs.items()},
        epochs_planned=next(e.config.settings.epochs for e, _ in runs.values()),
        top1={seed: state.top1 for seed, (_, state) in runs.items()},
        failed={seed: state.failure for seed, (_, state) in runs.items() if state.failure},
        at_chance=[seed for seed, (_, state) in runs.items() if state.is_at_chance],
        mean=mean(finished) if finished else None,
        spread=stdev(finished) if len(finished) > 1 else None,
        published=published,
    )
