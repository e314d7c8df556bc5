"""The cells of a table: runs of ``avsnn train``, found again by their settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from avsnn.errors import RunError, UserError
from avsnn.pipeline.evaluation.evaluate import recorded_evaluation
from avsnn.pipeline.experiments.presets import load_presets
from avsnn.pipeline.experiments.read_table import choose_rows, load_table
from avsnn.pipeline.experiments.tables import Table, TableRow
from avsnn.pipeline.runs.checkpoint import best_checkpoint
from avsnn.pipeline.runs.config import RunConfig, make_config
from avsnn.pipeline.runs.metrics import read_metrics
from avsnn.pipeline.runs.stored_run import StoredRun
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings


class Changes(NamedTuple):
    """What the user changes in every row of a table.

    Attributes:
        presets: presets, or files, that lie under the preset of each row.
        assignments: words ``KEY=VALUE`` that override the settings of each row.
    """

    presets: Sequence[str] = ()
    assignments: Sequence[str] = ()


class HowToRun(NamedTuple):
    """How the commands of a table are carried out; nothing here changes the trained weights.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: number of processes that read batches.
        save_every: steps between two resume points; None saves after every epoch.
        plugins: Python files with methods of the user's own.
    """

    device: str = "auto"
    workers: int = 0
    save_every: int | None = None
    plugins: Sequence[Path] = ()

    @property
    def common_words(self) -> list[str]:
        """The words that ``train`` and ``evaluate`` take alike."""
        words = [] if self.device == "auto" else ["--device", self.device]
        return words + [part for path in self.plugins for part in ("--plugin", str(path))]


class RunState(NamedTuple):
    """How far a run of a table is.

    Attributes:
        epochs: number of trained epochs.
        top1: top-1 on the test part in %; None if the run is not finished and evaluated.
        guessing: accuracy of guessing on the test part in %; None as for ``top1``.
        is_at_chance: whether the 95 % interval of ``top1`` includes the accuracy of guessing.
        failure: why the run cannot be read or did not succeed; empty if all is well.
    """

    epochs: int
    top1: float | None = None
    guessing: float | None = None
    is_at_chance: bool = False
    failure: str = ""


class Experiment(NamedTuple):
    """One cell of a table: a run, which may be missing, unfinished or finished.

    Attributes:
        row: the row of the table.
        seed: the seed of the run.
        config: the configuration of the run.
        folder: the run folder.
        options: the options from which ``avsnn train`` makes this configuration.
    """

    row: TableRow
    seed: int
    config: RunConfig
    folder: Path
    options: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Row and seed, as a person reads both."""
        return f"row {self.row.name}, seed {self.seed}"

    def state(self) -> RunState:
        """Read from the run folder how far the run is."""
        try:
            epochs = len(read_metrics(self.folder, self.config.settings.selection))
            if epochs < self.config.settings.epochs:
                return RunState(epochs)
            if not best_checkpoint(self.folder).exists():
                return RunState(epochs)
            result = recorded_evaluation(StoredRun(self.folder), part="test")
        except (UserError, RunError, OSError) as error:
            return RunState(0, failure=reason_of(error))
        if result is None:
            return RunState(epochs)
        return RunState(epochs, 100 * result.top1, 100 * result.guessing, result.is_at_chance)

    def train_words(self, how: HowToRun) -> list[str]:
        """Return the words of ``avsnn`` that train the run, or go on with the run."""
        words = ["train", self.config.dataset, *self.options, "--run", str(self.folder), "--resume"]
        words += how.common_words
        words += ["--workers", str(how.workers)] if how.workers else []
        return words + (["--save-every", str(how.save_every)] if how.save_every else [])


class Ended(NamedTuple):
    """A run whose training has ended.

    Attributes:
        experiment: the run.
        seconds: duration of the training in s.
        failure: why there is no trained network; empty if all is well.
    """

    experiment: Experiment
    seconds: float
    failure: str


class Plan(NamedTuple):
    """What is to be done for a table.

    Attributes:
        table: the table.
        changes: what the user changes in every row.
        experiments: the cells of the chosen rows, row by row.
        runs: folder that holds the run folders; the table is written below this folder.
    """

    table: Table
    changes: Changes
    experiments: list[Experiment]
    runs: Path

    def missing(self) -> list[Experiment]:
        """Return the cells whose runs are not finished and evaluated; rows may share a run."""
        by_folder = {experiment.folder: experiment for experiment in self.experiments}
        return [experiment for experiment in by_folder.values() if experiment.state().top1 is None]


def plan_table(
    table: str | None,
    *,
    rows: str | None,
    dataset: str,
    seeds: str,
    changes: Changes,
    root: Path,
    runs: Path,
) -> Plan:
    """Find every cell of a table; touch nothing.

    Args:
        table: name of a published table, or path of a file.
        rows: names of the rows that are wanted, such as ``add,audio``; None takes all rows.
        dataset: name of the data set to train on.
        seeds: the seeds, such as ``42,47``; each row has one run for each seed.
        changes: what the user changes in every row.
        root: folder that holds the data sets.
        runs: folder that holds the run folders.

    Raises:
        UserError: there is no such table or row, the seeds are no numbers, a setting is wrong, or
            the data set is not prepared.
    """
    found = load_table(table)
    wanted = _parse_seeds(seeds)
    experiments = []
    for row in choose_rows(found, rows):
        presets = [*changes.presets, *([row.preset] if row.preset else [])]
        assignments = [*row.settings, *changes.assignments]
        # A mistake in --set is no mistake of a row that has no settings of its own.
        place = f"row {row.name}: " if row.settings else ""
        if any(word.startswith("seed=") for word in assignments):
            raise UserError(f"{place}reproduce takes the seed from --seeds alone.")
        loaded = load_presets(dataset, presets)
        for seed in wanted:
            words = [*assignments, f"seed={seed}"]
            try:
                settings = build_settings(TrainSettings, loaded, words)
            except UserError as error:
                raise UserError(f"{place}{error}") from None
            config = make_config(dataset, settings, root=root)
            options = [part for preset in presets for part in ("--preset", preset)]
            options += [part for word in words for part in ("--set", word)]
            options += [] if root == Path("data") else ["--root", str(root)]
            folder = runs / config.folder_name
            experiments.append(Experiment(row, seed, config, folder, options))
    return Plan(found, changes, experiments, runs)


def _parse_seeds(text: str) -> list[int]:
    """Return the numbers of a list such as ``42,47``.

    Raises:
        UserError: the text is no list of numbers, or names a seed twice.
    """
    words = text.split(",")
    seeds = [int(word) for word in words if word.strip().isdecimal()]
    if len({*seeds}) < len(words):
        raise UserError(f"--seeds {text!r} is not a list of different numbers, such as 42,47,1024.")
    return seeds


def reason_of(error: Exception) -> str:
    """Return why a run cannot be read or did not succeed, as a sentence."""
    if isinstance(error, OSError):
        return f"{error.filename} cannot be used: {error.strerror}."
    return str(error)


def busy_error(folder: Path) -> RunError:
    """Return the error that another command trains a run of the table."""
    return RunError(
        f"another avsnn run is writing to {folder}. Wait for the end of that run, or choose "
        "another --runs."
    )
