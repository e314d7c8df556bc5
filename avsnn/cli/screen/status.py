"""What `status` prints."""

from __future__ import annotations

from itertools import zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.table import Table

from avsnn.cli.screen.console import format_bytes, out
from avsnn.cli.streams import printable

if TYPE_CHECKING:
    from pathlib import Path

# The facts of a run, in this order, and the side on which the texts of a column stand.
FACTS = {
    **dict.fromkeys(("date", "data set", "method"), "left"),
    **dict.fromkeys(("seed", "epochs", "best", "test"), "right"),
    "state": "left",
}

# Characters between two texts of a line; the narrowest name of a data set or a method.
GAP = 2
MIN_NAME = 6


def print_status(
    stage_rows: list[dict[str, Any]],
    faults: list[dict[str, str]],
    run_rows: list[dict[str, Any]],
    *,
    root: Path,
    runs: Path,
) -> None:
    """Print a table of the stages of every data set, the faults, and a table of the runs."""
    if not stage_rows and not faults:
        out.print(f"No data set is prepared in {root}; start with 'avsnn prepare demo'.")
    if stage_rows:
        out.print(_table_of_stages(stage_rows))
    for row in faults:
        out.print(f"{row['dataset']} cannot be used: {row['fault']}", markup=False)
    if not run_rows:
        out.print(f"No run is in {runs}; 'avsnn train DATASET' makes one.")
    if not (stage_rows or faults or run_rows):
        out.print(
            "Data sets of your own are found in the folder that --datasets or the environment "
            "variable AVSNN_DATASETS names."
        )
    if run_rows:
        _print_runs(run_rows, runs)
        for row in run_rows:
            if row["unreadable"]:
                kind = "unreadable: " if row["state"] == "unreadable" else ""
                out.print(f"{row['run']}: {kind}{row['unreadable']}")


def _table_of_stages(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="stages", title_justify="left")
    for heading in ("data set", "stage"):
        table.add_column(heading)
    for heading in ("units done", "written", "skipped", "failed", "size"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["dataset"],
            row["stage"],
            f"{row['done']:,} of {row['units']:,}" if row["units"] else "not yet known",
            *(f"{row[name]:,}" for name in ("written", "skipped", "failed")),
            format_bytes(row["bytes"]),
        )
    return table


def _print_runs(rows: list[dict[str, Any]], runs: Path) -> None:
    """Print a line of facts for each run, and its special settings in a line below.

    Where a line is too long for the screen, the name of the run has a line of its own.
    """
    names = ["run", *(printable(row["name"]) for row in rows)]
    facts = [list(FACTS), *([printable(text) for text in _facts(row)] for row in rows)]
    settings = ["", *(_settings(row) for row in rows)]
    of_names = max(map(cell_len, names))
    widths = [max(map(cell_len, column)) for column in zip(*facts, strict=True)]
    fits = of_names + sum(widths) + GAP * len(widths) <= out.width
    if not fits:
        _narrow(widths)
    out.print(f"runs in {runs}", style="italic")
    for name, texts, words in zip(names, facts, settings, strict=True):
        start = set_cell_size(name, of_names) if fits else ""
        lines = _lines(start, widths, texts)
        for line in lines if fits else [name, *lines]:
            out.print(line, style="bold" if texts is facts[0] else "", no_wrap=True)
        for line in _wrapped(words):
            out.print(line, style="dim", no_wrap=True)


def _narrow(widths: list[int]) -> None:
    """Narrow the columns of facts until a line fits the screen, if that is possible."""
    for _ in range(sum(widths) + GAP * len(widths) - out.width):
        # Names of data sets and methods can break; numbers cannot.
        longest = max((1, 2), key=lambda column: widths[column])
        widths[longest] = max(MIN_NAME, widths[longest] - 1)


def _lines(start: str, widths: list[int], texts: list[str]) -> list[str]:
    """Return facts below each other; a text that is too long for its column breaks into lines."""
    broken = [chop_cells(text, width) or [""] for text, width in zip(texts, widths, strict=True)]
    lines = []
    for pieces in zip_longest(*broken, fillvalue=""):
        cells = [start]
        for piece, width, side in zip(pieces, widths, FACTS.values(), strict=True):
            gap = " " * (width - cell_len(piece))
            cells.append(gap + piece if side == "right" else piece + gap)
        lines.append((" " * GAP).join(cells).rstrip())
        start = " " * cell_len(start)
    return lines


def _wrapped(words: str) -> list[str]:
    """Return the settings of a run, indented, in as many lines as the screen needs."""
    indent = " " * (GAP + GAP)
    return wrap(
        words,
        width=out.width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _facts(row: dict[str, Any]) -> list[str]:
    return [
        (row["begun"] or "")[:10],
        row["dataset"] or "",
        row["method"] or "",
        "" if row["seed"] is None else str(row["seed"]),
        _epochs(row),
        _percent(row["best_accuracy"]),
        _percent(row["test_top1"]),
        row["state"],
    ]


def _settings(row: dict[str, Any]) -> str:
    """Return the special settings of a run, as words of the command line without ``--set``."""
    words = [f"--preset {row['preset']}"] if row["preset"] else []
    words += [
        f"{key.split('.')[-1]}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in (row["differs"] or {}).items()
    ]
    return printable(" ".join(words))


def _epochs(row: dict[str, Any]) -> str:
    if row["epochs"] is None or row["converted_from"]:
        return ""
    planned = row["epochs_planned"]
    return f"{row['epochs']:,}" + ("" if planned is None else f"/{planned:,}")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
