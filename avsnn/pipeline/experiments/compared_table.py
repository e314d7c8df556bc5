"""A table whose rows are compared with one of them, under several conditions."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from pydantic import BaseModel, Field

from avsnn.pipeline.evaluation.comparison import with_holm
from avsnn.pipeline.experiments.experiment import Experiment, Plan, RunState
from avsnn.pipeline.experiments.table_text import AT_CHANCE, FilledTable, Section, TableText

LEVEL = 0.95

# A standard deviation of accuracies in % below this number comes from rounding: one of a billion
# clips is more.
ROUNDING = 1e-8
CLEAN = "clean"
# Marks a difference whose interval does not include 0.
BETTER, WORSE = "▲", "▼"

# The split and the seed of a run.
Pair = tuple[str, int]


class Interval(BaseModel):
    """A mean with half of the width of its 95 % interval.

    Attributes:
        mean: the mean.
        half: half of the interval's width, by Student's t distribution; None for fewer than two
            values, and for equal values, whose spread nobody knows.
    """

    mean: float
    half: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.half is None else f" ± {self.half:.1f}")


class Difference(Interval):
    """A row minus the row that the table compares with, over the pairs that both rows have.

    Attributes:
        pairs: number of pairs of fold and seed.
        p: p-value of the paired t-test, two-sided; None for fewer than two pairs, and for
            equal differences.
        adjusted_p: `p` after the correction of Holm (1979) for the rows of the same column.
    """

    pairs: int
    p: float | None
    adjusted_p: float | None

    def __str__(self) -> str:
        mark = ""
        if self.half is not None and self.p is not None and abs(self.mean) > self.half:
            mark = f" {BETTER}" if self.mean > 0 else f" {WORSE}"
        if self.adjusted_p is not None and self.adjusted_p < 1 - LEVEL:
            mark += "!"
        # The sum with 0 is never -0, which would look like a loss.
        shown = f"{round(self.mean, 1) + 0.0:+.1f}"
        return shown + ("" if self.half is None else f" ± {self.half:.1f}{mark}")


class ComparedFigure(BaseModel):
    """The accuracy of a row at one level of noise.

    Attributes:
        top1: top-1 in % by ``FOLD SEED`` of each run that is finished and evaluated.
        at_chance: the runs, as ``FOLD SEED``, whose own 95 % interval is not above the accuracy
            of guessing.
        average: mean over the runs; None if no run is finished.
        difference: the difference to the row that the table compares with; None in that row, and
            where the two rows have no pair of fold and seed.
    """

    top1: dict[str, float]
    at_chance: list[str]
    average: Interval | None
    difference: Difference | None = None

    @property
    def average_text(self) -> str:
        """The average, with a mark if no run is better than guessing; empty without a run."""
        if self.average is None:
            return ""
        return f"{self.average}" + (f" {AT_CHANCE}" if self.is_at_chance else "")

    @property
    def is_at_chance(self) -> bool:
        """Whether there are runs, and none of them is better than guessing."""
        return bool(self.top1) and len(self.at_chance) == len(self.top1)


class ComparedRow(BaseModel):
    """A row under one condition.

    Attributes:
        name: name of the row.
        preset: the preset, or the file, with the settings of the row; None for none.
        settings: words ``KEY=VALUE`` that change the preset.
        runs: run folder by ``FOLD SEED``.
        failed: why a run cannot be read or did not succeed, by ``FOLD SEED``.
        figures: accuracy for clean inputs (``clean``) and at each level of noise (``20 dB``).
        energy_uj: energy of one inference in uJ, as mean over the runs; None if no run is finished.
    """

    name: str
    preset: str | None
    settings: list[str]
    runs: dict[str, str]
    failed: dict[str, str] = Field(default_factory=dict)
    figures: dict[str, ComparedFigure]
    energy_uj: float | None

    @property
    def done(self) -> int:
        """Number of runs that are finished and evaluated."""
        return len(self.figures[CLEAN].top1)


class ComparedBlock(BaseModel):
    """All rows under one condition.

    Attributes:
        condition: name of the condition.
        lines: the rows.
    """

    condition: str
    lines: list[ComparedRow]


class ComparedTable(FilledTable):
    """A table with comparisons: the content of ``<table>-<dataset>.json``.

    Attributes:
        against: name of the row that the other rows are compared with.
        folds: the splits; every row is trained on each of them with every seed.
        seeds: the seeds.
        blocks: the rows under each condition.
    """

    against: str
    folds: list[str]
    seeds: list[int]
    blocks: list[ComparedBlock]

    @property
    def failures(self) -> list[str]:
        """Sentences about the runs that cannot be read or did not succeed."""
        return [
            f"{line.name}, {block.condition}, {pair}: {reason}"
            for block in self.blocks
            for line in block.lines
            for pair, reason in line.failed.items()
        ]

    def text(self) -> TableText:
        """Return the table as text."""
        lines = [line for block in self.blocks for line in block.lines]
        missing = sum(len(line.runs) - line.done for line in lines)
        folds = f" on each of {', '.join(self.folds)}" if self.folds else ""
        caption = (
            f"{self.title}: top-1 (%) on the test part of {self.dataset}, {self.epoch_words}; "
            f"each row trained{folds} with seeds "
            f"{', '.join(map(str, self.seeds))}{self.changed_words}. Beside a name: mean and 95 % "
            "interval over the runs."
        )
        if any(line.name == self.against for line in lines):
            caption += (
                f" Below: difference to {self.against} with the same fold and seed, and its 95 % "
                "interval."
            )
            note = (
                f"{BETTER} better, {WORSE} worse than {self.against}: the interval of the "
                "difference does not include 0. ! p < 0.05 in the paired t-test, after Holm's "
                "correction for the rows of the column."
            )
        else:
            note = (
                f"The row {self.against} was not chosen, so nothing is compared with it: name it "
                "in --rows too."
            )
        notes = [note]
        if any(figure.is_at_chance for line in lines for figure in line.figures.values()):
            notes.append(
                f"{AT_CHANCE} no better than chance: the 95 % interval of every run is not above "
                "the accuracy of guessing."
            )
        notes += self.failures
        if missing:
            count = "1 run" if missing == 1 else f"{missing:,} runs"
            notes.append(f"{count} of {sum(len(line.runs) for line in lines):,} to do.")
        return TableText(caption, [_section(block) for block in self.blocks], notes)


def _section(block: ComparedBlock) -> Section:
    header = ["", *block.lines[0].figures, "uJ", "runs"]
    return Section(block.condition, header, [row for line in block.lines for row in _rows(line)])


def _rows(line: ComparedRow) -> list[list[str]]:
    """Return the row of the means, and the row of the differences unless there is none."""
    figures = line.figures.values()
    means = [figure.average_text for figure in figures]
    energy = "" if line.energy_uj is None else f"{line.energy_uj:.1f}"
    rows = [[line.name, *means, energy, f"{line.done} of {len(line.runs)}"]]
    if any(figure.difference for figure in figures):
        differences = ["" if one.difference is None else str(one.difference) for one in figures]
        rows.append(["", *differences, "", ""])
    return rows


def compare_rows(plan: Plan, states: Mapping[Path, RunState], *, against: str) -> ComparedTable:
    """Return a table with comparisons as far as its runs are finished.

    Args:
        plan: the table.
        states: the state of each run, by its folder.
        against: name of the row that the other rows are compared with.
    """
    experiments = plan.experiments
    configs = [experiment.config for experiment in experiments]
    return ComparedTable(
        table=plan.table.name,
        title=plan.table.title,
        dataset=configs[0].dataset,
        selection=" or ".join(dict.fromkeys(config.settings.selection for config in configs)),
        changed=plan.changes.words,
        against=against,
        folds=[fold for fold in dict.fromkeys(e.fold for e in experiments) if fold],
        seeds=list(dict.fromkeys(e.seed for e in experiments)),
        blocks=[
            _block(name, [e for e in experiments if e.condition == name], states, against)
            for name in dict.fromkeys(e.condition for e in experiments)
        ],
    )


def _block(
    condition: str,
    experiments: Sequence[Experiment],
    states: Mapping[Path, RunState],
    against: str,
) -> ComparedBlock:
    rows = {experiment.row.name: experiment.row for experiment in experiments}
    lines = {name: _line([e for e in experiments if e.row.name == name], states) for name in rows}
    if against in lines:
        measures = lines[against].figures
        for measure in measures:
            _compare_column({name: line.figures[measure] for name, line in lines.items()}, against)
    return ComparedBlock(condition=condition, lines=list(lines.values()))


def _line(experiments: Sequence[Experiment], states: Mapping[Path, RunState]) -> ComparedRow:
    row = experiments[0].row
    found = {
        " ".join(filter(None, (e.fold, str(e.seed)))): (e, states[e.folder]) for e in experiments
    }
    done = {pair: state for pair, (_, state) in found.items() if state.top1 is not None}
    top1 = {pair: state.top1 for pair, state in done.items() if state.top1 is not None}
    figures = {CLEAN: _figure(top1, [pair for pair, state in done.items() if state.is_at_chance])}
    for snr in experiments[0].noise:
        noisy = {pair: state.noisy[snr] for pair, state in done.items()}
        figures[f"{snr:g} dB"] = _figure(
            {pair: accuracy.top1 for pair, accuracy in noisy.items()},
            [pair for pair, accuracy in noisy.items() if accuracy.is_at_chance],
        )
    energies = [state.energy_uj for state in done.values() if state.energy_uj is not None]
    return ComparedRow(
        name=row.name,
        preset=row.preset,
        settings=row.settings,
        runs={pair: str(experiment.folder) for pair, (experiment, _) in found.items()},
        failed={pair: state.failure for pair, (_, state) in found.items() if state.failure},
        figures=figures,
        energy_uj=mean(energies) if energies else None,
    )


def _figure(top1: dict[str, float], at_chance: list[str]) -> ComparedFigure:
    average = _interval(top1.values()) if top1 else None
    return ComparedFigure(top1=top1, at_chance=at_chance, average=average)


def _compare_column(figures: Mapping[str, ComparedFigure], against: str) -> None:
    """Fill in the difference of every row to one row, for one condition and one level of noise."""
    base = figures[against].top1
    differences: list[Difference] = []
    for name, figure in figures.items():
        pairs = [pair for pair in figure.top1 if pair in base]
        if name == against or not pairs:
            continue
        values = [figure.top1[pair] - base[pair] for pair in pairs]
        found = _interval(values)
        figure.difference = Difference(
            mean=found.mean,
            half=found.half,
            pairs=len(pairs),
            p=paired_t_test(values),
            adjusted_p=None,
        )
        differences.append(figure.difference)
    tested = [one for one in differences if one.p is not None]
    for one, adjusted in zip(
        tested, with_holm([one.p for one in tested if one.p is not None]), strict=True
    ):
        one.adjusted_p = adjusted


def _interval(values: Iterable[float]) -> Interval:
    """Return mean and half of the width of the 95 % interval, by Student's t distribution."""
    # scipy.stats takes half a second to import.
    from scipy.stats import t

    found = list(values)
    count = len(found)
    half = None
    if count > 1 and (spread := _spread(found)):
        half = float(t.ppf((1 + LEVEL) / 2, count - 1)) * spread / count**0.5
    return Interval(mean=mean(found), half=half)


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation of at least two values in %; 0 for values that are equal."""
    # Differences of the same number of clips differ by the rounding of their numbers.
    found = stdev(values)
    return found if found > ROUNDING else 0.0


def paired_t_test(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of the paired t-test.

    None stands for fewer than two pairs, and for equal differences, whose spread nobody knows: two
    seeds often differ by the same number of clips.

    Args:
        differences: the difference of each pair.
    """
    from scipy.stats import t

    count = len(differences)
    if count < 2 or not (spread := _spread(differences)):
        return None
    return float(2 * t.sf(abs(mean(differences)) / spread * count**0.5, count - 1))
