"""What `status` prints."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from avsnn.cli.screen.console import format_bytes, out


def print_status(
    stage_rows: list[dict[str, Any]], faults: list[dict[str, str]], run_rows: list[dict[str, Any]]
) -> None:
    """Print a table of the stages of every data set, the faults, and a table of the runs."""
    if stage_rows:
        out.print(_table_of_stages(stage_rows))
    elif not faults:
        out.print("No data set is prepared here yet; start with 'avsnn prepare demo'.")
    for row in faults:
        out.print(f"{row['dataset']} cannot be used: {row['fault']}", markup=False)
    if run_rows:
        out.print(_table_of_runs(run_rows))
        for row in run_rows:
            if row["unreadable"]:
                out.print(f"{row['run']}: unreadable: {row['unreadable']}")


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


def _table_of_runs(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="runs", title_justify="left")
    for heading in ("run", "method", "epochs", "best epoch", "test"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        if row["epochs"] is None:
            table.add_row(row["run"], "unreadable", "", "", "")
            continue
        best, top1 = row["best_accuracy"], row["test_top1"]
        table.add_row(
            row["run"],
            row["method"],
            "converted" if row["converted_from"] else f"{row['epochs']} of {row['epochs_planned']}",
            "" if best is None else f"{best:.2%} on {row['selection']}",
            "" if top1 is None else f"{top1:.2%}",
        )
    return table
