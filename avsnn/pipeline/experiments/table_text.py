"""A filled table as text: on a screen, and as Markdown."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from avsnn.pipeline.engine.atomic_files import (
    remove_partial_files_of_dead_writers,
    write_atomically,
)

# Marks a figure that guessing may give too.
AT_CHANCE = "†"

# What a caption says of the epoch, by the setting `selection`.
EPOCHS = {
    "val": "epoch chosen on val",
    "test": "epoch chosen on test, the published habit",
    "last": "the last epoch",
}


class Section(NamedTuple):
    """The rows that stand below one line of headings.

    Attributes:
        title: stands above the headings; empty if the table has one section.
        header: the headings of the columns.
        rows: a cell for each heading.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class TableText(NamedTuple):
    """A table as text.

    Attributes:
        caption: a sentence that says what the figures are.
        sections: the parts of the table.
        notes: sentences that stand below the table.
    """

    caption: str
    sections: Sequence[Section]
    notes: Sequence[str]


class FilledTable(BaseModel, ABC):
    """A table whose runs are finished, or as far as the runs are finished.

    Attributes:
        table: name of the table.
        title: title of the table.
        dataset: name of the data set.
        selection: the part that chose the epoch, or ``last``; names joined by ``or`` where the rows
            differ.
        changed: what the user changed in every row: presets, and settings as ``key=value``.
    """

    table: str
    title: str
    dataset: str
    selection: str
    changed: list[str]

    @property
    @abstractmethod
    def failures(self) -> list[str]:
        """Sentences about the runs that cannot be read or did not succeed."""

    @abstractmethod
    def text(self) -> TableText:
        """Return the table as text."""

    @property
    def changed_words(self) -> str:
        """What the user changed in every row, as the end of a caption; empty if nothing."""
        return f"; changed: {', '.join(self.changed)}" if self.changed else ""

    @property
    def epoch_words(self) -> str:
        """Which epoch the figures are of, as a part of a caption."""
        return " or ".join(EPOCHS[selection] for selection in self.selection.split(" or "))


def table_files(found: FilledTable, runs: Path) -> tuple[Path, Path]:
    """Return the paths of a filled table as Markdown and as JSON.

    Args:
        found: the table.
        runs: the folder of the run folders.
    """
    folder, name = runs / "tables", f"{found.table}-{found.dataset}"
    return folder / f"{name}.md", folder / f"{name}.json"


def write_table(found: FilledTable, runs: Path) -> None:
    """Write a filled table as Markdown and as JSON, to :func:`table_files`."""
    page, data = table_files(found, runs)
    remove_partial_files_of_dead_writers(page.parent)
    write_atomically(page, to_markdown(found.text()).encode())
    write_atomically(data, (json.dumps(found.model_dump(), indent=1) + "\n").encode())


def to_markdown(text: TableText) -> str:
    """Return a table as Markdown, with its caption and its notes."""
    lines = [text.caption, ""]
    for section in text.sections:
        lines += [f"## {section.title}", ""] if section.title else []
        rows = [_markdown_row(row) for row in (section.header, *section.rows)]
        rows.insert(1, "|" + "|".join(["---", *("---:" for _ in section.header[1:])]) + "|")
        lines += [*rows, ""]
    return "\n".join([*lines, *(part for note in text.notes for part in (note, ""))])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
