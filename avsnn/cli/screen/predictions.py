"""What `predict` prints: a table, JSON lines or CSV, on the screen or in a file."""

from __future__ import annotations

import csv
import json
import os
import sys
from contextlib import ExitStack
from io import StringIO
from typing import TYPE_CHECKING, Literal, Self, TextIO

from rich.table import Table
from rich.text import Text

from avsnn.cli.screen.console import PlainConsole, out, say
from avsnn.cli.streams import printable
from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.progress import CourseOfWork

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from avsnn.pipeline.prediction.record import Prediction

Format = Literal["table", "jsonl", "csv"]

FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".txt": "table"}

CSV_COLUMNS = (
    *("clip", "sound", "answer", "confidence", "second", "second_confidence"),
    *("third", "third_confidence", "missing", "reason"),
)

# A spreadsheet takes a cell that starts with one of these characters for a formula.
FORMULA_STARTS = ("=", "+", "-", "@")

# Width in characters of a table in a file.
FILE_WIDTH = 160


# Stands for the middle of a name that is too wide for its column.
GAP = "..."


def choose_format(form: Format | None, path: Path | None) -> Format:
    """Return the form of the answers.

    Args:
        form: the form that the person asked for; None where the person did not.
        path: the file to write; None for standard output.
        clips: the files that are read.

    Raises:
        UserError: the file is a folder, one of the clips or in a folder that does not exist, or its
            name names no form.
    """
    if path is None:
        return form or "table"
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; give the name of the file to write.")
    # Not `Path.exists`, which raises an exception for a name that is too long.
    if not os.path.exists(path.parent):  # noqa: PTH110
        raise UserError(f"--out {path}: there is no folder {path.parent}; make the folder first.")
    if form is None and path.suffix.lower() not in FORMATS:
        raise UserError(
            f"--out {path} names no form of answers; end the name with .jsonl, .csv or .txt, or "
            "add --format."
        )
    return form or FORMATS[path.suffix.lower()]


class PredictionWriter:
    """Writes predictions as they come; a table is written when all predictions are there.

    Args:
        form: the form.
        path: the file to write; None for standard output.
        clips: the files and folders that the person named.

    Attributes:
        clips: number of predictions so far.
        unanswered: number of predictions so far that have no answer.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, form: Format, path: Path | None, clips: Sequence[Path]) -> None:
        self.clips = self.unanswered = 0
        self._folder = _common_folder(clips)
        self._form, self._path = form, path
        self._predictions: list[Prediction] = []
        self._stack = ExitStack()
        self._stream: TextIO = sys.stdout
        if path is not None:
            try:
                file = path.open("w", encoding="utf-8", newline="")
            except OSError as error:
                raise UserError(
                    f"--out {path} cannot be written: {error.strerror}; choose another file."
                ) from None
            self._stream = self._stack.enter_context(file)
        if form == "csv":
            self._write(_csv_line(CSV_COLUMNS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write the table, and close the file.

        Raises:
            RunError: the disk is full or fails.
        """
        try:
            with self._stack:
                if self._form == "table" and self._predictions:
                    self._print_table()
        except OSError as error:
            if self._path is None:
                raise
            # Closing the file tries again to write what could not be written.
            raise self._not_written(error) from None
        if self._path is not None:
            say(CourseOfWork(f"the answers are in {self._path}"))

    def add(self, prediction: Prediction) -> None:
        """Write a prediction.

        Raises:
            RunError: the disk is full or fails.
        """
        self.clips += 1
        self.unanswered += prediction.answer is None
        if self._form == "table":
            self._predictions.append(prediction)
        elif self._form == "csv":
            self._write(_csv_line(_cells(prediction)))
        else:
            self._write(_json_line(prediction))

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            # An interrupted command leaves the answers that it has found.
            self._stream.flush()
        except OSError as error:
            raise self._not_written(error) from None

    def _not_written(self, error: OSError) -> RunError:
        return RunError(f"{self._path} cannot be written: {error.strerror}.")

    def _print_table(self) -> None:
        if self._path is None:
            out.print(_table(self._predictions, self._folder, out.width))
            return
        text = StringIO()
        console = PlainConsole(
            file=text, width=FILE_WIDTH, highlight=False, markup=False, emoji=False
        )
        console.print(_table(self._predictions, self._folder, FILE_WIDTH))
        self._write(text.getvalue())


def _common_folder(clips: Sequence[Path]) -> str:
    """Return the deepest folder that holds all named files and folders; empty if there is none."""
    folders = [str(clip if os.path.isdir(clip) else clip.parent) for clip in clips]  # noqa: PTH112
    try:
        return os.path.commonpath(folders)
    except ValueError:
        # Absolute and relative paths are mixed.
        return ""


def _short_name(path: str, folder: str, width: int) -> str:
    """Return a name that fits into a width: a path below a folder, or a class without a folder.

    The middle of the name is left out where the name is too wide.
    """
    name = printable(path.removeprefix(f"{folder.rstrip('/')}/") if folder else path)
    kept = width - len(GAP)
    return name if len(name) <= width else f"{name[: kept // 2]}{GAP}{name[-(kept - kept // 2) :]}"


def _table(predictions: list[Prediction], folder: str, width: int) -> Table:
    """Return the table: of each clip the three best classes, each on a line of its own.

    Args:
        predictions: the rows.
        folder: the folder below which the table names the clips.
        width: width of the table in characters; a name takes three tenths of the width at most.
    """
    table = Table()
    table.add_column("clip", no_wrap=True)
    table.add_column("answer, then", no_wrap=True)
    table.add_column("confidence", justify="right", no_wrap=True)
    has_reasons = any(prediction.reason for prediction in predictions)
    if has_reasons:
        table.add_column("missing or wrong", overflow="fold")
    widest = width * 3 // 10
    for prediction in predictions:
        names = [_short_name(prediction.clip, folder, widest)]
        if prediction.sound is not None:
            names.append(f"+ {_short_name(prediction.sound, folder, widest - 2)}")
        classes = [_short_name(choice.name, "", widest) for choice in prediction.top] or ["-"]
        shares = [f"{choice.confidence:.1%}" for choice in prediction.top]
        reason = [prediction.reason] if has_reasons else []
        columns = (Text("\n".join(lines)) for lines in (names, classes, shares))
        table.add_row(*columns, *reason)
    return table


def _json_line(prediction: Prediction) -> str:
    """Return a prediction as one line of JSON, in ASCII."""
    record = prediction.model_dump(mode="python")
    # A name that is no UTF-8 holds characters that no JSON holds.
    for name in ("clip", "sound"):
        if record[name] is not None:
            record[name] = record[name].encode("utf-8", "backslashreplace").decode()
    return json.dumps(record) + "\n"


def _cells(prediction: Prediction) -> list[str]:
    choices = [cell for choice in prediction.top for cell in (choice.name, f"{choice.confidence}")]
    choices += [""] * (6 - len(choices))
    missing = " ".join(prediction.missing)
    texts = [prediction.clip, prediction.sound or "", *choices, missing, prediction.reason]
    return [_safe_cell(text) for text in texts]


def _safe_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula, without control characters."""
    text = printable(text)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _csv_line(cells: tuple[str, ...] | list[str]) -> str:
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
