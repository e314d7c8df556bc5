"""What `reproduce` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from avsnn.cli.screen.console import out

if TYPE_CHECKING:
    from pathlib import Path

    from avsnn.pipeline.experiments.tables import ReproducedTable


def print_reproduction(reproduction: ReproducedTable, runs: Path | None) -> None:
    """Print a table with the figures that are measured so far.

    Args:
        reproduction: the table.
        runs: the folder of the run folders; None if the table was not written.
    """
    from avsnn.pipeline.experiments.tables import (
        table_caption,
        table_cells,
        table_files,
        table_header,
        table_notes,
    )

    # As a title of the table, the caption would be broken to the width of the table.
    out.print(table_caption(reproduction))
    table = Table()
    for number, heading in enumerate(table_header(reproduction)):
        table.add_column(heading, justify="right" if number else "left")
    for line in reproduction.lines:
        table.add_row(*table_cells(reproduction, line))
    out.print(table)
    for note in table_notes(reproduction):
        out.print(note)
    if runs is not None:
        page, data = table_files(reproduction, runs)
        out.print(f"written: {page} and {data}")
