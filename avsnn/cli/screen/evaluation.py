"""What `evaluate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from avsnn.cli.screen.console import out
from avsnn.cli.screen.training import CHOSEN_ON_TEST

if TYPE_CHECKING:
    from pathlib import Path

    from avsnn.pipeline.evaluation.measures import Evaluation


def print_evaluation(result: Evaluation, *, measured_before: bool, page: Path | None) -> None:
    """Print the measures of one run.

    Args:
        result: the measures.
        measured_before: whether an earlier command took the measures, on the same checkpoint.
        page: the report of the run; None if the run folder is read-only and has no such report.
    """
    table = Table(
        title=f"{result.run}: {result.part} part of {result.dataset}, split {result.split}",
        title_justify="left",
    )
    table.add_column("class")
    for heading in ("precision", "recall", "F1", "clips"):
        table.add_column(heading, justify="right")
    for row in result.classes:
        figures = (row.precision, row.recall, row.f1)
        table.add_row(row.name, *(f"{figure:.3f}" for figure in figures), f"{row.clips:,}")
    out.print(table)
    top5 = "" if result.top5 is None else f", top-5 {result.top5:.2%}"
    out.print(
        f"top-1 {result.top1:.2%}{top5}, loss {result.loss:.4f}, {result.clips:,} clips, "
        f"epoch {result.epoch or 'unknown'} (chosen on {result.selection})"
        f"{CHOSEN_ON_TEST if result.selection == 'test' else ''}"
    )
    if measured_before:
        out.print("The same checkpoint was measured before; the data were not read again.")
    out.print(f"report: {page or 'none, because the run folder is read-only'}")
