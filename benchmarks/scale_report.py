"""Prints what ``benchmarks.scale`` measured: a table, lines through the figures, and their ends.

A line is ``a + b * clips``, by least squares of the relative errors, so that a small size counts as
much as a large size.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

#: Limits of memory, in MB, and of time, in s.
MEMORY_MB = (1500, 16000)
DAY_S = 86400
#: The limit of open files that most systems set for a process.
OPEN_FILES = 1024
#: Kinds of figures of a command, each with a name for the table of lines.
KINDS = {"cpu": "CPU s", "main_mb": "MB", "worker_mb": "MB of a worker", "open_files": "open files"}
#: Below these values, a figure does not grow.
SMALL = {"cpu": 0.05, "main_mb": 1, "worker_mb": 1, "open_files": 1}

#: The name of the command that measures tasks.
TASKS = "tasks of a cluster"

Facts = dict[str, Any]


class Line(NamedTuple):
    """A figure as a function of the number of clips: ``start + per_clip * clips``."""

    start: float
    per_clip: float

    def clips_at(self, limit: float) -> float:
        """Return the number of clips at which the figure reaches a limit."""
        return (limit - self.start) / self.per_clip if self.per_clip > 0 else np.inf


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """Return the line through figures: least squares of the relative errors.

    Args:
        points: number of clips and figure, at least two.
    """
    clips, figures = np.array(points, float).T
    weights = 1 / np.maximum(figures, 1e-9)
    matrix = np.stack([np.ones_like(clips), clips], 1) * weights[:, None]
    start, per_clip = np.linalg.lstsq(matrix, figures * weights, rcond=None)[0]
    return Line(float(start), float(per_clip))


def names_of(measured: list[Facts]) -> list[str]:
    """Return the names of all commands that were measured, in order."""
    return list(dict.fromkeys(name for facts in measured for name in facts["costs"]))


def points_of(measured: list[Facts], name: str, kind: str) -> list[tuple[float, float]]:
    """Return number of clips and figure for every size that has the figure."""
    return [
        (facts["clips"], facts["costs"][name][kind]) for facts in measured if name in facts["costs"]
    ]


def print_table(measured: list[Facts]) -> None:
    """Print wall s / CPU s / peak MB of the main process, one row for each command."""
    print("\nEach cell: wall s / CPU s / peak MB of the main process.\n")
    print_row("", *(f"{facts['clips']:,}" for facts in measured))
    print_row("---", *("---:" for _ in measured))
    names = names_of(measured)
    for name in names:
        costs = [facts["costs"].get(name) for facts in measured]
        print_row(name, *(cell(cost) if cost else "" for cost in costs))
        if any(cost and "samples_per_s" in cost for cost in costs):
            texts = (
                f"{cost['first_batch_s']:.2f} s, {cost['samples_per_s']:,.0f}/s" if cost else ""
                for cost in costs
            )
            print_row("… first batch, samples/s", *texts)
    readers = [name for name in names if name.startswith(("batches", "train"))]
    for title, kind, chosen in (
        ("largest worker, MB", "worker_mb", ["prepare", *readers]),
        ("MB without mapped files", "main_private_mb", readers),
        ("largest worker, MB without mapped files", "worker_private_mb", readers),
        ("open files", "open_files", ["prepare", *readers]),
    ):
        for name in chosen:
            figures = [facts["costs"].get(name, {}).get(kind, 0) for facts in measured]
            if any(figures):
                print_row(f"{title}: {name}", *(f"{figure:,.0f}" for figure in figures))
    print_row("files on disk", *(f"{facts['files']:,}" for facts in measured))
    print_row("GB on disk", *(f"{facts['disk_bytes'] / 1e9:.2f}" for facts in measured))


def print_tasks(measured: list[Facts]) -> None:
    """Print what the tasks of the largest size cost the command that hands the tasks out."""
    found = [facts for facts in measured if "tasks" in facts["costs"].get(TASKS, {})]
    if not found:
        return
    print(f"\nTasks of {found[-1]['clips']:,} clips\n")
    titles = ("units", "tasks", "kB a task", "CPU ms a task", "CPU µs to plan a unit")
    print_row("stage", *titles)
    print_row("---", *("---:" for _ in titles))
    for stage, task in found[-1]["costs"][TASKS]["tasks"].items():
        print_row(
            stage,
            f"{task['units']:,}",
            f"{task['tasks']:,}",
            f"{task['bytes'] / 1000:.1f}",
            f"{task['cpu_ms_per_task']:.2f}",
            f"{task['cpu_us_per_unit_planned']:.1f}",
        )


def cell(cost: Facts) -> str:
    """Return a cell of the table: wall s / CPU s / peak MB of the main process."""
    return f"{short(cost['wall'])} / {short(cost['cpu'])} / {cost['main_mb']:,.0f}"


def short(seconds: float) -> str:
    """Return seconds with one digit after the point below 10, and none above."""
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:,.0f}"


def print_fits(measured: list[Facts]) -> None:
    """Print the line through each figure: its start, and its growth for a million clips."""
    print("\nLines: start + growth for each million clips\n")
    print_row("", *KINDS.values())
    print_row("---", *("---:" for _ in KINDS))
    for name in names_of(measured):
        texts = []
        for kind, small in SMALL.items():
            points = points_of(measured, name, kind)
            if len(points) < 2 or max(figure for _, figure in points) < small:
                texts.append("")
                continue
            line = fit(points)
            texts.append(f"{line.start:,.1f} + {line.per_clip * 1e6:,.0f}")
        print_row(name, *texts)


def print_ends(measured: list[Facts]) -> None:
    """Print at how many clips each resource ends."""
    print("\nMillions of clips at which a resource ends\n")
    titles = [f"{limit / 1000:g} GB" for limit in MEMORY_MB]
    titles += [f"{limit / 1000:g} GB in a worker" for limit in MEMORY_MB]
    titles += ["24 h of a core", f"{OPEN_FILES:,} open files"]
    print_row("", *titles)
    print_row("---", *("---:" for _ in titles))
    for name in names_of(measured):
        limits = [("main_mb", limit) for limit in MEMORY_MB]
        limits += [("worker_mb", limit) for limit in MEMORY_MB]
        limits += [("cpu", DAY_S), ("open_files", OPEN_FILES)]
        print_row(name, *(end(points_of(measured, name, kind), limit) for kind, limit in limits))
    files = [(facts["clips"], facts["files"]) for facts in measured]
    disk_bytes = [(facts["clips"], facts["disk_bytes"]) for facts in measured]
    print(
        f"\n{fit(files).per_clip:.3f} files and {fit(disk_bytes).per_clip / 1000:.2f} kB on the "
        "disk for each clip"
    )


def end(points: list[tuple[float, float]], limit: float) -> str:
    """Return at how many millions of clips a figure reaches a limit; empty where it never does."""
    if len(points) < 2:
        return ""
    clips = fit(points).clips_at(limit) / 1e6
    return "" if clips > 1e5 else f"{clips:,.1f}"


def print_row(*cells: str) -> None:
    """Print a row of a Markdown table."""
    print(f"| {' | '.join(cells)} |")
