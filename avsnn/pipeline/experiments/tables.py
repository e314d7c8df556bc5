"""Tables: their rows, and the table that a reproduction fills."""

from pydantic import BaseModel, Field

from avsnn.pipeline.experiments.table_text import AT_CHANCE, FilledTable, Section, TableText

# The published seeds.
SEEDS = [42, 47, 1024]


class TableRow(BaseModel):
    """A row of a table.

    Attributes:
        name: name of the row.
        preset: the preset, or the file, with the settings of the row; None for none.
        settings: words ``KEY=VALUE`` that change the preset.
        published: published top-1 in %, by data set: one figure, or one figure for each seed.
    """

    name: str
    preset: str | None = None
    settings: list[str] = Field(default_factory=list)
    published: dict[str, float | dict[int, float]] = Field(default_factory=dict)


class Condition(BaseModel):
    """A condition under which every row of a table is trained.

    Attributes:
        name: name of the condition; empty in a table without conditions.
        settings: words ``KEY=VALUE`` of the condition, weaker than those of a row.
    """

    name: str = ""
    settings: list[str] = Field(default_factory=list)


class Table(BaseModel):
    """A table: the content of ``tables/<name>.yaml``, or of a file of one's own.

    Attributes:
        name: name of the table.
        title: title of the table.
        rows: the rows.
        against: name of the row that every other row is compared with; None compares nothing.
        conditions: every row is trained under each condition.
        folds: names of splits; every row is trained on each of them with every seed. Empty trains
            on the split of the settings.
        noise: signal to noise ratios in dB at which every run is measured too.
        seeds: the seeds, unless the user names others.
    """

    name: str
    title: str
    rows: list[TableRow]
    against: str | None = None
    conditions: list[Condition] = Field(default_factory=lambda: [Condition()])
    folds: list[str] = Field(default_factory=list)
    noise: list[float] = Field(default_factory=list)
    seeds: list[int] = Field(default_factory=SEEDS.copy)


class ReproducedRow(BaseModel):
    """A row of a reproduced table; all figures are top-1 in %.

    Attributes:
        name: name of the row.
        preset: the preset, or the file, with the settings of the row; None for none.
        settings: words ``KEY=VALUE`` that change the preset.
        runs: the run folder of each seed.
        epochs: number of trained epochs of each seed.
        epochs_planned: number of epochs of a finished run.
        top1: the figure of each seed; None for a run that is not finished and evaluated.
        failed: why a run cannot be read or did not succeed, by seed; empty if all is well.
        at_chance: the seeds whose 95 % interval is not above the accuracy of guessing.
        mean: mean over the finished runs.
        spread: sample standard deviation over the finished runs; None for fewer than two runs.
        published: the published figure for this data set; the mean where there are several.
    """

    name: str
    preset: str | None
    settings: list[str] = Field(default_factory=list)
    runs: dict[int, str]
    epochs: dict[int, int]
    epochs_planned: int
    top1: dict[int, float | None]
    failed: dict[int, str] = Field(default_factory=dict)
    at_chance: list[int] = Field(default_factory=list)
    mean: float | None
    spread: float | None
    published: float | None


class ReproducedTable(FilledTable):
    """A reproduced table: the content of ``<table>-<dataset>.json``.

    Attributes:
        split: name of the split; names joined by ``or`` where the rows differ.
        guessing: accuracy of guessing in %: of naming a class by chance, or the class with the most
            clips, whichever is right more often; None before the first finished run, and where the
            runs differ.
        lines: the rows.
    """

    split: str
    guessing: float | None = None
    lines: list[ReproducedRow]

    @property
    def missing(self) -> int:
        """Number of runs that are not finished and evaluated."""
        return sum(value is None for line in self.lines for value in line.top1.values())

    @property
    def has_published(self) -> bool:
        """Whether any row has a published figure for this data set."""
        return any(line.published is not None for line in self.lines)

    @property
    def missing_runs(self) -> list[str]:
        """Name and seeds of every row that has runs to do."""
        left = {
            line.name: [str(seed) for seed, value in line.top1.items() if value is None]
            for line in self.lines
        }
        return [
            f"{name} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})"
            for name, seeds in left.items()
            if seeds
        ]

    @property
    def failures(self) -> list[str]:
        """Sentences about the runs that cannot be read or did not succeed."""
        return [
            f"{line.name}, seed {seed}: {reason}"
            for line in self.lines
            for seed, reason in line.failed.items()
        ]

    def text(self) -> TableText:
        """Return the table as text."""
        headings = ["", *(f"seed {seed}" for seed in self.lines[0].top1), "mean"]
        headings += ["published"] if self.has_published else []
        rows = [self._cells(line) for line in self.lines]
        return TableText(self._caption(), [Section("", headings, rows)], self._notes())

    def _cells(self, row: ReproducedRow) -> list[str]:
        """Return a row as text, one cell for each heading."""
        measured = [
            "failed"
            if seed in row.failed
            else f"{row.epochs[seed]} of {row.epochs_planned} epochs"
            if top1 is None
            else f"{top1:.2f}{f' {AT_CHANCE}' if seed in row.at_chance else ''}"
            for seed, top1 in row.top1.items()
        ]
        average = "" if row.mean is None else f"{row.mean:.2f}"
        if row.spread is not None:
            average += f" ± {row.spread:.2f}"
        cells = [row.name, *measured, average]
        if self.has_published:
            cells.append("" if row.published is None else f"{row.published:.2f}")
        return cells

    def _caption(self) -> str:
        """Return a sentence that says what the figures are."""
        return (
            f"{self.title}: top-1 (%) on the test part of {self.dataset}, split {self.split}, "
            f"{self.epoch_words}; mean ± sample standard deviation over seeds{self.changed_words}"
        )

    def _notes(self) -> list[str]:
        """Return the sentences below the table: what the mark means, what failed, what is to do."""
        notes = []
        if any(line.at_chance for line in self.lines):
            share = "" if self.guessing is None else f" ({self.guessing:.2f} %)"
            notes.append(
                f"{AT_CHANCE} no better than chance: the 95 % interval of the run is not above the "
                f"accuracy of guessing{share}."
            )
        notes += self.failures
        if self.missing:
            count = "1 run" if self.missing == 1 else f"{self.missing} runs"
            notes.append(f"{count} to do: {', '.join(self.missing_runs)}.")
        return notes
