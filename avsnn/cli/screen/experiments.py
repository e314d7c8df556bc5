"""What `reproduce` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from avsnn.cli.screen.console import out

if TYPE_CHECKING:
    from pathlib import Path

    from avsnn.pipeline.experiments.tables import ReproducedTable


def print_reproduction(reproduction: ReproducedTable, folder: Path | None) -> None:
    """Print a published table with the figures that are measured so far.

    Args:
        reproduction: the table.
        folder: where the table was written; None if the table was not written.
    """
    from avsnn.pipeline.experiments.tables import table_caption, table_cells, table_header

    table = Table(title=table_caption(reproduction), title_justify="left")
    for number, heading in enumerate(table_header(reproduction)):
        table.add_column(heading, justify="right" if number else "left")
    for line in reproduction.lines:
        table.add_row(*table_cells(line, reproduction.epochs_planned))
    out.print(table)
    missing = sum(value is None for line in reproduction.lines for value in line.top1.values())
    if missing:
        out.print(f"{missing} runs to do.")
    if folder is not None:
        base = folder / f"{reproduction.table}-{reproduction.dataset}"
        out.print(f"written: {base}.md and {base}.json")
