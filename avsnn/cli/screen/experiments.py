"""What `reproduce` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from avsnn.cli.screen.console import out

if TYPE_CHECKING:
    from pathlib import Path

    from avsnn.pipeline.experiments.table_text import FilledTable


def print_reproduction(reproduction: FilledTable, runs: Path | None) -> None:
    """Print a table with the figures that are measured so far.

    Args:
        reproduction: the table.
        runs: the folder of the run folders; None if the table was not written.
    """
    from avsnn.pipeline.experiments.table_text import table_files

    text = reproduction.text()
    # As a title of the table, the caption would be broken to the width of the table.
    out.print(text.caption)
    for section in text.sections:
        if section.title:
            out.print()
            out.print(section.title)
        table = Table()
        for number, heading in enumerate(section.header):
            table.add_column(heading, justify="right" if number else "left")
        for row in section.rows:
            table.add_row(*row)
        out.print(table)
    for note in text.notes:
        out.print(note)
    if runs is not None:
        page, data = table_files(reproduction, runs)
        out.print(f"written: {page} and {data}")
