"""Tables: their rows, and the table that a reproduction fills, as data and as text."""

import json
from pathlib import Path

from pydantic import BaseModel, Field

from avsnn.pipeline.engine.atomic_files import (
    remove_partial_files_of_dead_writers,
    write_atomically,
)

# Marks a figure that guessing may give too.
AT_CHANCE = "†"


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


class Table(BaseModel):
    """A table: the content of ``tables/<name>.yaml``, or of a file of one's own."""

    name: str
    title: str
    rows: list[TableRow]


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
        at_chance: the seeds whose 95 % interval includes the accuracy of guessing.
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


class ReproducedTable(BaseModel):
    """A reproduced table: the content of ``<table>-<dataset>.json``.

    Attributes:
        table: name of the table.
        title: title of the table.
        dataset: name of the data set.
        split: name of the split; names joined by ``or`` where the rows differ.
        selection: the part that chose the epoch, or ``last``; joined in the same way.
        changed: what the user changed in every row: presets, and settings as ``key=value``.
        guessing: accuracy of guessing in %: of naming a class by chance, or the class with the most
            clips, whichever is right more often; None before the first finished run, and where the
            runs differ.
        lines: the rows.
    """

    table: str
    title: str
    dataset: str
    split: str
    selection: str
    changed: list[str]
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


def table_files(found: ReproducedTable, runs: Path) -> tuple[Path, Path]:
    """Return the paths of a reproduced table as Markdown and as JSON.

    Args:
        found: the table.
        runs: the folder of the run folders.
    """
    folder, name = runs / "tables", f"{found.table}-{found.dataset}"
    return folder / f"{name}.md", folder / f"{name}.json"


def write_table(found: ReproducedTable, runs: Path) -> None:
    """Write a reproduced table as Markdown and as JSON, to :func:`table_files`."""
    page, data = table_files(found, runs)
    remove_partial_files_of_dead_writers(page.parent)
    write_atomically(page, table_markdown(found).encode())
    write_atomically(data, (json.dumps(found.model_dump(), indent=1) + "\n").encode())


def table_header(found: ReproducedTable) -> list[str]:
    """Return the headings of the columns."""
    headings = ["", *(f"seed {seed}" for seed in found.lines[0].top1), "mean"]
    return [*headings, "published"] if found.has_published else headings


def table_cells(found: ReproducedTable, row: ReproducedRow) -> list[str]:
    """Return a row of a table as text, one cell for each heading."""
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
    if found.has_published:
        cells.append("" if row.published is None else f"{row.published:.2f}")
    return cells


def table_caption(found: ReproducedTable) -> str:
    """Return a sentence that says what the figures are."""
    on_test = ", the published habit" if found.selection == "test" else ""
    changed = f"; changed: {', '.join(found.changed)}" if found.changed else ""
    return (
        f"{found.title}: top-1 (%) on the test part of {found.dataset}, split {found.split}, epoch "
        f"chosen on {found.selection}{on_test}; mean ± sample standard deviation over seeds"
        f"{changed}"
    )


def table_notes(found: ReproducedTable) -> list[str]:
    """Return the sentences below the table: what the mark means, what failed, what is to do."""
    notes = []
    if any(line.at_chance for line in found.lines):
        share = "" if found.guessing is None else f" ({found.guessing:.2f} %)"
        notes.append(
            f"{AT_CHANCE} no better than chance: the 95 % interval of the run includes the "
            f"accuracy of guessing{share}."
        )
    notes += found.failures
    if found.missing:
        count = "1 run" if found.missing == 1 else f"{found.missing} runs"
        notes.append(f"{count} to do: {', '.join(found.missing_runs)}.")
    return notes


def table_markdown(found: ReproducedTable) -> str:
    """Return the table as Markdown, with its caption and its notes."""
    rows = [table_header(found), *(table_cells(found, row) for row in found.lines)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "|".join(["---", *("---:" for _ in rows[0][1:])]) + "|")
    notes = [part for note in table_notes(found) for part in (note, "")]
    return "\n".join([table_caption(found), "", *lines, "", *notes])
