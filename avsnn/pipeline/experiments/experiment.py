"""The cells of a table: runs of ``avsnn train``, found again by their settings."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from avsnn.datasets_manifest import load
from avsnn.errors import RunError, UserError
from avsnn.pipeline.evaluation.evaluate import (
    recorded_evaluation,
    recorded_insight,
    recorded_robustness,
)
from avsnn.pipeline.experiments.presets import load_presets
from avsnn.pipeline.experiments.read_table import (
    choose_conditions,
    choose_folds,
    choose_rows,
    load_table,
)
from avsnn.pipeline.experiments.tables import Condition, Table, TableRow
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

    @property
    def words(self) -> list[str]:
        """The changes as a caption names the changes."""
        return [*(f"preset {preset}" for preset in self.presets), *self.assignments]


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


class NoisyAccuracy(NamedTuple):
    """The accuracy of a run at a level of noise.

    Attributes:
        top1: top-1 on the test part in %.
        is_at_chance: whether the 95 % interval of ``top1`` is not above the accuracy of guessing.
    """

    top1: float
    is_at_chance: bool


class RunState(NamedTuple):
    """How far a run of a table is.

    Attributes:
        epochs: number of trained epochs.
        top1: top-1 on the test part in %; None if the run is not finished and evaluated.
        guessing: accuracy of guessing on the test part in %; None as for ``top1``.
        is_at_chance: whether the 95 % interval of ``top1`` is not above the accuracy of guessing.
        noisy: the accuracy by the signal to noise ratio in dB of every input that the network
            reads; empty in a table without noise.
        energy_uj: energy of one inference in uJ; None in a table without noise.
        failure: why the run cannot be read or did not succeed; empty if all is well.
    """

    epochs: int
    top1: float | None = None
    guessing: float | None = None
    is_at_chance: bool = False
    noisy: Mapping[float, NoisyAccuracy] = MappingProxyType({})
    energy_uj: float | None = None
    failure: str = ""


class Experiment(NamedTuple):
    """One cell of a table: a run, which may be missing, unfinished or finished.

    Attributes:
        row: the row of the table.
        seed: the seed of the run.
        config: the configuration of the run.
        folder: the run folder.
        options: the options from which ``avsnn train`` makes this configuration.
        condition: name of the condition; empty in a table without conditions.
        fold: name of the split in a table with folds, otherwise empty.
        noise: signal to noise ratios in dB at which the run is measured too.
    """

    row: TableRow
    seed: int
    config: RunConfig
    folder: Path
    options: Sequence[str] = ()
    condition: str = ""
    fold: str = ""
    noise: Sequence[float] = ()

    @property
    def name(self) -> str:
        """Row, condition, fold and seed, as a person reads them."""
        parts = (f"row {self.row.name}", self.condition, self.fold, f"seed {self.seed}")
        return ", ".join(filter(None, parts))

    def state(self) -> RunState:
        """Read from the run folder how far the run is."""
        try:
            epochs = len(read_metrics(self.folder, self.config.settings.selection))
            if epochs < self.config.settings.epochs:
                return RunState(epochs)
            if not best_checkpoint(self.folder).exists():
                return RunState(epochs)
            run = StoredRun(self.folder)
            result = recorded_evaluation(run, part="test")
            if result is None:
                return RunState(epochs)
            noisy, energy_uj = self._beside(run, result.guessing) if self.noise else ({}, None)
        except (UserError, RunError, OSError) as error:
            return RunState(0, failure=reason_of(error))
        if len(noisy) < len(self.noise):
            return RunState(epochs)
        top1, guessing = 100 * result.top1, 100 * result.guessing
        return RunState(epochs, top1, guessing, result.is_at_chance, noisy, energy_uj)

    def _beside(
        self, run: StoredRun, guessing: float
    ) -> tuple[dict[float, NoisyAccuracy], float | None]:
        """Return the accuracy at each level of noise, and the energy in uJ; empty if not measured.

        Args:
            run: the run.
            guessing: accuracy of guessing, as a share of clips.
        """
        robustness = recorded_robustness(run, part="test")
        insight = recorded_insight(run, part="test")
        if robustness is None or insight is None:
            return {}, None
        # The last curve has noise on every input that the network reads.
        points = {
            point.snr: NoisyAccuracy(100 * point.top1.value, point.top1.low <= guessing)
            for point in robustness.curves[-1].points
        }
        return {snr: points[snr] for snr in self.noise}, insight.energy.energy_pj / 1e6

    def train_words(self, how: HowToRun) -> list[str]:
        """Return the words of ``avsnn`` that train the run, or go on with the run."""
        words = ["train", self.config.dataset, *self.options, "--run", str(self.folder), "--resume"]
        words += how.common_words
        words += ["--workers", str(how.workers)] if how.workers else []
        return words + (["--save-every", str(how.save_every)] if how.save_every else [])

    def evaluate_words(self, how: HowToRun) -> list[str]:
        """Return the words of ``avsnn`` that measure the run."""
        more = ["--robustness", "--insight"] if self.noise else []
        return ["evaluate", str(self.folder), *more, *how.common_words]


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

    def states(self) -> dict[Path, RunState]:
        """Read how far each run is, by its folder; rows may share a run."""
        return {folder: experiment.state() for folder, experiment in self._by_folder().items()}

    def missing(self, states: Mapping[Path, RunState]) -> list[Experiment]:
        """Return the cells whose runs are not finished and evaluated.

        Args:
            states: the state of each run, from `states`.
        """
        return [e for folder, e in self._by_folder().items() if states[folder].top1 is None]

    def _by_folder(self) -> dict[Path, Experiment]:
        return {experiment.folder: experiment for experiment in self.experiments}


class Wanted(NamedTuple):
    """The part of a table that is wanted, as lists of names such as ``add,audio``.

    Attributes:
        rows: names of rows, or of their presets; None takes all rows.
        conditions: names of conditions; None takes all conditions.
        folds: names of folds; None takes all folds.
    """

    rows: str | None = None
    conditions: str | None = None
    folds: str | None = None


def plan_table(
    table: str | None,
    *,
    wanted: Wanted,
    dataset: str,
    seeds: str | None,
    changes: Changes,
    root: Path,
    runs: Path,
) -> Plan:
    """Find every cell of a table; touch nothing.

    Args:
        table: name of a published table, or path of a file.
        wanted: the part of the table.
        dataset: name of the data set to train on.
        seeds: the seeds, such as ``42,47``; each row has one run for each seed. None takes the
            seeds of the table.
        changes: what the user changes in every row.
        root: folder that holds the data sets.
        runs: folder that holds the run folders.

    Raises:
        UserError: there is no such table or row, the seeds are no numbers, a setting is wrong, or
            the data set is not prepared.
    """
    found = load_table(table)
    rows = choose_rows(found, wanted.rows)
    conditions = choose_conditions(found, wanted.conditions)
    folds = choose_folds(found, wanted.folds) or [""]
    if strange := [fold for fold in folds if fold and fold not in load(dataset).splits]:
        raise UserError(
            f"the table {found.name} has the fold {strange[0]!r}, and {dataset} has no split of "
            "this name; choose another --dataset, or --folds."
        )
    cells = list(product(conditions, folds, found.seeds if seeds is None else _parse_seeds(seeds)))
    experiments = []
    for row in rows:
        presets = [*changes.presets, *([row.preset] if row.preset else [])]
        loaded = load_presets(dataset, presets)
        for condition, fold, seed in cells:
            words = _words_of_cell(row, condition, fold, seed, changes)
            settings = _settings_of_cell(row, loaded, words)
            config = make_config(dataset, settings, root=root)
            options = [part for preset in presets for part in ("--preset", preset)]
            options += [part for word in words for part in ("--set", word)]
            options += [] if root == Path("data") else ["--root", str(root)]
            folder = runs / config.folder_name
            experiments.append(
                Experiment(row, seed, config, folder, options, condition.name, fold, found.noise)
            )
    _require_different_conditions(experiments)
    return Plan(found, changes, experiments, runs)


def _require_different_conditions(experiments: Sequence[Experiment]) -> None:
    """Refuse two conditions with the same runs, which would stand under two headings.

    Raises:
        UserError: a row has one run under two conditions.
    """
    names: dict[tuple[str, Path], str] = {}
    for experiment in experiments:
        key = experiment.row.name, experiment.folder
        first = names.setdefault(key, experiment.condition)
        if first != experiment.condition:
            raise UserError(
                f"row {experiment.row.name}: the conditions {first!r} and "
                f"{experiment.condition!r} have the same settings; leave out the --set, or the "
                "setting of the row, that is stronger than the conditions, or one of the two with "
                "--conditions."
            )


def _place(row: TableRow) -> str:
    """Return how a sentence about a setting begins; empty where --set may be what is wrong."""
    return f"row {row.name}: " if row.settings else ""


def _words_of_cell(
    row: TableRow, condition: Condition, fold: str, seed: int, changes: Changes
) -> list[str]:
    """Return the words ``KEY=VALUE`` of a cell, from the weakest to the strongest."""
    of_fold = [f"data.split={fold}"] if fold else []
    assignments = [*condition.settings, *row.settings, *of_fold, *changes.assignments]
    if any(word.startswith("seed=") for word in assignments):
        raise UserError(f"{_place(row)}reproduce takes the seed from --seeds alone.")
    return [*assignments, f"seed={seed}"]


def _settings_of_cell(
    row: TableRow, loaded: Sequence[dict[str, Any]], words: Sequence[str]
) -> TrainSettings:
    try:
        return build_settings(TrainSettings, loaded, words)
    except UserError as error:
        raise UserError(f"{_place(row)}{error}") from None


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
