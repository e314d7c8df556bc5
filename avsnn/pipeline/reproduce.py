"""9. A published table: every row trained and evaluated with every seed, beside what was published.

A row is a preset. Runs are those of ``avsnn train``, found again by their settings, so that tables
share them, what is done is skipped and what was cut goes on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, Field

from avsnn.errors import UserError
from avsnn.pipeline.evaluate import evaluate, recorded
from avsnn.pipeline.files import write_atomically
from avsnn.pipeline.run import RunConfig, TrainSettings, load_presets, make_config, read_metrics
from avsnn.pipeline.settings import build_settings
from avsnn.pipeline.stage import Progress
from avsnn.pipeline.train import Manner, train

TABLES = Path(__file__).parent / "tables"


class TableRow(BaseModel):
    """A preset, and the published top-1 in % by data set: one figure, or one for each seed."""

    name: str
    preset: str
    published: dict[str, float | dict[int, float]] = Field(default_factory=dict)


class Table(BaseModel):
    """``tables/<name>.yaml``."""

    title: str
    rows: list[TableRow]


class Experiment(NamedTuple):
    """One cell of a table: a run that may be there, in whole or in part."""

    row: TableRow
    seed: int
    config: RunConfig
    folder: Path

    @property
    def top1(self) -> float | None:
        """Top-1 on the test part in %; None where it is not trained to the end and evaluated."""
        if self.epochs < self.config.settings.epochs:
            return None
        result = recorded(self.folder, self.config, part="test")
        return None if result is None else 100 * result.top1

    @property
    def epochs(self) -> int:
        """Epochs that are trained."""
        return len(read_metrics(self.folder))


class Line(BaseModel):
    """A row of the finished table; figures are top-1 in %.

    Attributes:
        name: of the row.
        preset: its settings.
        runs: the run folder of each seed.
        epochs: how many of those planned are trained, by seed.
        top1: by seed; None where it is not there yet.
        mean: over the seeds that are there.
        spread: their sample standard deviation; None for fewer than two.
        published: what was published for this data set, the mean where there are several.
    """

    name: str
    preset: str
    runs: dict[int, str]
    epochs: dict[int, int]
    top1: dict[int, float | None]
    mean: float | None
    spread: float | None
    published: float | None


class Reproduction(BaseModel):
    """What ``<table>-<dataset>.json`` holds."""

    table: str
    title: str
    dataset: str
    split: str
    selection: str
    epochs_planned: int
    changed: list[str]
    lines: list[Line]


def tables() -> list[str]:
    """Names of all tables."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def parse_seeds(text: str) -> list[int]:
    """``42,47`` as numbers.

    Raises:
        UserError: it is something else, or names a seed twice.
    """
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words) or len({*words}) < len(words):
        raise UserError(f"--seeds {text!r} is not a list of different numbers, such as 42,47,1024.")
    return [int(word) for word in words]


def plan_table(
    name: str,
    *,
    dataset: str,
    seeds: Sequence[int],
    assignments: Sequence[str],
    root: Path,
    runs: Path,
) -> list[Experiment]:
    """Every cell of a table, row by row; touches nothing.

    Args:
        name: of the table.
        dataset: to train on.
        seeds: one run each.
        assignments: ``key=value`` words over the settings of every row.
        root: where data sets are kept.
        runs: where run folders are.

    Raises:
        UserError: there is no such table, a setting is wrong, or the data set is not prepared.
    """
    if name not in tables():
        raise UserError(f"there is no table {name!r}; there are: {', '.join(tables())}.")
    found = []
    for row in _load(name).rows:
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
    manner: Manner,
    into: Path,
    progress: Progress,
    say: Callable[[str], None],
) -> Reproduction:
    """Trains and evaluates what is missing, and writes the table after every run.

    Raises:
        UserError: as :func:`avsnn.pipeline.train.train`.
        PreemptedError: SIGTERM came; what was done is saved.
    """
    missing = [experiment for experiment in experiments if experiment.top1 is None]
    for number, experiment in enumerate(missing, 1):
        say(f"[{number} of {len(missing)}] {experiment.row.name}, seed {experiment.seed}")
        train(
            experiment.config,
            folder=experiment.folder,
            manner=replace(manner, resume=experiment.folder.exists()),
            progress=progress,
            say=say,
        )
        evaluate(experiment.folder, part="test", root=None, device=manner.device, progress=progress)
        write_table(summarise(name, experiments, assignments), into)
    found = summarise(name, experiments, assignments)
    write_table(found, into)
    return found


def summarise(
    name: str, experiments: Sequence[Experiment], assignments: Sequence[str]
) -> Reproduction:
    """The table as far as its runs are."""
    first = experiments[0].config
    rows = {experiment.row.name: experiment.row for experiment in experiments}
    return Reproduction(
        table=name,
        title=_load(name).title,
        dataset=first.dataset,
        split=first.split,
        selection=first.settings.selection,
        epochs_planned=first.settings.epochs,
        changed=list(assignments),
        lines=[
            _line(row, [e for e in experiments if e.row.name == row.name], first.dataset)
            for row in rows.values()
        ],
    )


def write_table(found: Reproduction, into: Path) -> tuple[Path, Path]:
    """Writes it as Markdown and as JSON; returns where."""
    base = into / f"{found.table}-{found.dataset}"
    page, data = base.with_name(f"{base.name}.md"), base.with_name(f"{base.name}.json")
    write_atomically(page, as_markdown(found).encode())
    write_atomically(data, (json.dumps(found.model_dump(), indent=1) + "\n").encode())
    return page, data


def header(found: Reproduction) -> list[str]:
    """The headings of the table's columns."""
    return ["", *(f"seed {seed}" for seed in found.lines[0].top1), "mean", "published"]


def cells(line: Line, epochs_planned: int) -> list[str]:
    """A line as text, as many cells as there are headings."""
    measured = [
        f"{line.epochs[seed]} of {epochs_planned} epochs" if top1 is None else f"{top1:.2f}"
        for seed, top1 in line.top1.items()
    ]
    average = "" if line.mean is None else f"{line.mean:.2f}"
    if line.spread is not None:
        average += f" ± {line.spread:.2f}"
    return [
        line.name,
        *measured,
        average,
        "" if line.published is None else f"{line.published:.2f}",
    ]


def caption(found: Reproduction) -> str:
    """What the figures are."""
    peeked = ", the published habit" if found.selection == "test" else ""
    changed = f"; changed: {', '.join(found.changed)}" if found.changed else ""
    return (
        f"{found.title}: top-1 (%) on the test part of {found.dataset}, split {found.split}, epoch "
        f"chosen on {found.selection}{peeked}; mean ± sample standard deviation over seeds{changed}"
    )


def as_markdown(found: Reproduction) -> str:
    """The table for a page."""
    rows = [header(found), *(cells(line, found.epochs_planned) for line in found.lines)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "|".join(["---", *("---:" for _ in rows[0][1:])]) + "|")
    return "\n".join([caption(found), "", *lines, ""])


def _line(row: TableRow, experiments: list[Experiment], dataset: str) -> Line:
    top1 = {experiment.seed: experiment.top1 for experiment in experiments}
    there = [value for value in top1.values() if value is not None]
    published: Any = row.published.get(dataset)
    if isinstance(published, dict):
        published = mean(published.values())
    return Line(
        name=row.name,
        preset=row.preset,
        runs={experiment.seed: str(experiment.folder) for experiment in experiments},
        epochs={experiment.seed: experiment.epochs for experiment in experiments},
        top1=top1,
        mean=mean(there) if there else None,
        spread=stdev(there) if len(there) > 1 else None,
        published=published,
    )


def _load(name: str) -> Table:
    return Table.model_validate(yaml.safe_load((TABLES / f"{name}.yaml").read_text()))
