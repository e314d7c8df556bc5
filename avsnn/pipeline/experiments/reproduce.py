"""10. Reproduction: trains and evaluates every row of a published table with every seed.

A row is a preset. The runs are runs of ``avsnn train``, and are found again by their settings.
Tables therefore share runs, a finished run is skipped, and an interrupted run goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from types import MappingProxyType
from typing import Any, NamedTuple

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.atomic_files import DiskFullError
from avsnn.pipeline.engine.lock import BusyError
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.evaluation.evaluate import evaluate, recorded_evaluation
from avsnn.pipeline.experiments.presets import load_presets
from avsnn.pipeline.experiments.tables import (
    ReproducedRow,
    ReproducedTable,
    TableRow,
    load_table,
    write_table,
)
from avsnn.pipeline.runs.checkpoint import best_checkpoint
from avsnn.pipeline.runs.config import RunConfig, make_config
from avsnn.pipeline.runs.metrics import read_metrics
from avsnn.pipeline.runs.stored_run import StoredRun
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training.options import RunOptions
from avsnn.pipeline.training.train import train


class Experiment(NamedTuple):
    """One cell of a table: a run, which may be missing, unfinished or finished."""

    row: TableRow
    seed: int
    config: RunConfig
    folder: Path

    def state(self) -> "RunState":
        """Read from the run folder how far the run is."""
        try:
            epochs = len(read_metrics(self.folder, self.config.settings.selection))
            if epochs < self.config.settings.epochs:
                return RunState(epochs)
            if not best_checkpoint(self.folder).exists():
                return RunState(epochs)
            result = recorded_evaluation(StoredRun(self.folder), part="test")
        except (UserError, RunError, OSError) as error:
            return RunState(0, failure=_reason(error))
        return RunState(epochs, top1=None if result is None else 100 * result.top1)


class RunState(NamedTuple):
    """How far a run of a table is.

    Attributes:
        epochs: number of trained epochs.
        top1: top-1 on the test part in %; None if the run is not finished and evaluated.
        failure: why the run cannot be read or did not succeed; empty if all is well.
    """

    epochs: int
    top1: float | None = None
    failure: str = ""


def parse_seeds(text: str) -> list[int]:
    """Return the numbers of a list such as ``42,47``.

    Raises:
        UserError: the text is no list of numbers, or names a seed twice.
    """
    words = text.split(",")
    seeds = [int(word) for word in words if word.strip().isdecimal()]
    if len({*seeds}) < len(words):
        raise UserError(f"--seeds {text!r} is not a list of different numbers, such as 42,47,1024.")
    return seeds


def plan_table(
    name: str,
    *,
    dataset: str,
    seeds: Sequence[int],
    assignments: Sequence[str],
    root: Path,
    runs: Path,
) -> list[Experiment]:
    """Return every cell of a table, row by row; touch nothing.

    Args:
        name: name of the table.
        dataset: name of the data set to train on.
        seeds: the seeds; each row has one run for each seed.
        assignments: ``key=value`` words that change the settings of every row.
        root: folder that holds the data sets.
        runs: folder that holds the run folders.

    Raises:
        UserError: there is no such table, a setting is wrong, or the data set is not prepared.
    """
    found = []
    for row in load_table(name).rows:
        for seed in seeds:
            settings = build_settings(
                TrainSettings,
                load_presets(dataset, [row.preset]),
                [*assignments, f"seed={seed}"],
            )
            config = make_config(dataset, settings, root=root)
            found.append(Experiment(row, seed, config, runs / config.folder_name))
    return found


def reproduce(
    name: str,
    experiments: Sequence[Experiment],
    *,
    assignments: Sequence[str],
    options: RunOptions,
    runs: Path,
    progress: Progress,
    say: Callable[[str], None],
) -> ReproducedTable:
    """Train and evaluate the runs that are missing, and write the table after every run.

    A run that cannot be read or does not succeed is said, and hides no other run.

    Args:
        name: name of the table.
        experiments: the cells of the table, from :func:`plan_table`.
        assignments: the words that changed the settings of every row.
        options: how each run is trained; a run that exists is resumed.
        runs: folder that holds the run folders; the table is written below this folder.
        progress: told of every step and every clip.
        say: gets one sentence at a time that a person should read.

    Raises:
        RunError: the disk is full, or another command trains one of the runs.
        PreemptedError: SIGTERM came; the training is saved as far as it came.
    """
    failures: dict[Path, str] = {}
    missing = [experiment for experiment in experiments if experiment.state().top1 is None]
    for number, experiment in enumerate(missing, 1):
        folder = experiment.folder
        say(f"[{number} of {len(missing)}] {experiment.row.name}, seed {experiment.seed}")
        try:
            train(
                experiment.config,
                folder=folder,
                options=replace(options, resume=folder.exists()),
                progress=progress,
                say=say,
            )
            evaluate(folder, part="test", root=None, device=options.device, progress=progress)
        except BusyError:
            raise RunError(
                f"another avsnn run is writing to {folder}. Wait for the end of that run, or "
                "choose another --runs."
            ) from None
        except DiskFullError:
            raise
        except (UserError, RunError, OSError) as error:
            failures[folder] = _reason(error)
            say(failures[folder])
        write_table(summarise(name, experiments, assignments, failures), runs)
    found = summarise(name, experiments, assignments, failures)
    write_table(found, runs)
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename} cannot be used: {error.strerror}."
    return str(error)


def summarise(
    name: str,
    experiments: Sequence[Experiment],
    assignments: Sequence[str],
    failures: Mapping[Path, str] = MappingProxyType({}),
) -> ReproducedTable:
    """Return the table as far as its runs are finished.

    Args:
        name: name of the table.
        experiments: the cells of the table, from :func:`plan_table`.
        assignments: the words that changed the settings of every row.
        failures: why runs did not succeed, by run folder.
    """
    states = {
        e.folder: e.state()._replace(failure=failures[e.folder])
        if e.folder in failures
        else e.state()
        for e in experiments
    }
    first = experiments[0].config
    rows = {experiment.row.name: experiment.row for experiment in experiments}
    return ReproducedTable(
        table=name,
        title=load_table(name).title,
        dataset=first.dataset,
        split=first.split,
        selection=first.settings.selection,
        epochs_planned=first.settings.epochs,
        changed=list(assignments),
        lines=[
            _summarise_row(
                row,
                {e.seed: (e.folder, states[e.folder]) for e in experiments if e.row == row},
                first.dataset,
            )
            for row in rows.values()
        ],
    )


def _summarise_row(
    row: TableRow, runs: Mapping[int, tuple[Path, RunState]], dataset: str
) -> ReproducedRow:
    finished = [state.top1 for _, state in runs.values() if state.top1 is not None]
    published: Any = row.published.get(dataset)
    if isinstance(published, dict):
        published = mean(published.values())
    return ReproducedRow(
        name=row.name,
        preset=row.preset,
        runs={seed: str(folder) for seed, (folder, _) in runs.items()},
        epochs={seed: state.epochs for seed, (_, state) in runs.items()},
        top1={seed: state.top1 for seed, (_, state) in runs.items()},
        failed={seed: state.failure for seed, (_, state) in runs.items() if state.failure},
        mean=mean(finished) if finished else None,
        spread=stdev(finished) if len(finished) > 1 else None,
        published=published,
    )
