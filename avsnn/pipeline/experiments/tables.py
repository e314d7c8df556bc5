"""Published tables: their rows, and the table that a reproduction fills, as data and as text."""

import json
from pathlib import Path

import yaml
from pydantic import BaseModel, Field

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import (
    remove_partial_files_of_dead_writers,
    write_atomically,
)
from avsnn.suggestions import did_you_mean, there_are

FOLDER = Path(__file__).parent / "tables"


class TableRow(BaseModel):
    """A row of a published table.

    Attributes:
        name: name of the row.
        preset: the preset with the settings of the row.
        published: published top-1 in %, by data set: one figure, or one figure for each seed.
    """

    name: str
    preset: str
    published: dict[str, float | dict[int, float]] = Field(default_factory=dict)


class Table(BaseModel):
    """A published table: the content of ``tables/<name>.yaml``."""

    title: str
    rows: list[TableRow]


class ReproducedRow(BaseModel):
    """A row of a reproduced table; all figures are top-1 in %.

    Attributes:
        name: name of the row.
        preset: the preset with the settings of the row.
        runs: the run folder of each seed.
        epochs: number of trained epochs of each seed.
        top1: the figure of each seed; None for a run that is not finished and evaluated.
        failed: why a run cannot be read or did not succeed, by seed; empty if all is well.
        mean: mean over the finished runs.
        spread: sample standard deviation over the finished runs; None for fewer than two runs.
        published: the published figure for this data set; the mean where there are several.
    """

    name: str
    preset: str
    runs: dict[int, str]
    epochs: dict[int, int]
    top1: dict[int, float | None]
    failed: dict[int, str] = Field(default_factory=dict)
    mean: float | None
    spread: float | None
    published: float | None


class ReproducedTable(BaseModel):
    """A reproduced table: the content of ``<table>-<dataset>.json``.

    Attributes:
        table: name of the published table.
        title: title of the published table.
        dataset: name of the data set.
        split: name of the split.
        selection: the part that chose the epoch, or ``last``.
        epochs_planned: number of epochs of a finished run.
        changed: the settings that the user changed in every row, as ``key=value``.
        lines: the rows.
    """

    table: str
    title: str
    dataset: str
    split: str
    selection: str
    epochs_planned: int
    changed: list[str]
    lines: list[ReproducedRow]

    @property
    def missing(self) -> int:
        """Number of runs that are not finished and evaluated."""
        return sum(value is None for line in self.lines for value in line.top1.values())

    @property
    def failures(self) -> list[str]:
        """Sentences about the runs that cannot be read or did not succeed."""
        return [
            f"{line.name}, seed {seed}: {reason}"
            for line in self.lines
            for seed, reason in line.failed.items()
        ]


def table_names() -> list[str]:
    """Return the names of all published tables."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_table(name: str) -> Table:
    """Read a published table.

    Raises:
        UserError: there is no table of this name.
    """
    known = table_names()
    if name not in known:
        near = did_you_mean(name, known)
        raise UserError(f"there is no table {name!r}; {near}{there_are(name, known)}.")
    return Table.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))


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
    return ["", *(f"seed {seed}" for seed in found.lines[0].top1), "mean", "published"]


def table_cells(row: ReproducedRow, epochs_planned: int) -> list[str]:
    """Return a row as text, one cell for each heading."""
    measured = [
        "failed"
        if seed in row.failed
        else f"{row.epochs[seed]} of {epochs_planned} epochs"
        if top1 is None
        else f"{top1:.2f}"
        for seed, top1 in row.top1.items()
    ]
    average = "" if row.mean is None else f"{row.mean:.2f}"
    if row.spread is not None:
        average += f" ± {row.spread:.2f}"
    return [
        row.name,
        *measured,
        average,
        "" if row.published is None else f"{row.published:.2f}",
    ]


def table_caption(found: ReproducedTable) -> str:
    """Return a sentence that says what the figures are."""
    on_test = ", the published habit" if found.selection == "test" else ""
    changed = f"; changed: {', '.join(found.changed)}" if found.changed else ""
    return (
        f"{found.title}: top-1 (%) on the test part of {found.dataset}, split {found.split}, epoch "
        f"chosen on {found.selection}{on_test}; mean ± sample standard deviation over seeds"
        f"{changed}"
    )


def table_markdown(found: ReproducedTable) -> str:
    """Return the table as Markdown, with its caption."""
    rows = [table_header(found), *(table_cells(row, found.epochs_planned) for row in found.lines)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "|".join(["---", *("---:" for _ in rows[0][1:])]) + "|")
    return "\n".join([table_caption(found), "", *lines, ""])
