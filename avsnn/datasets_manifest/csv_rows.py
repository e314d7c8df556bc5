"""Rows of a CSV file, in the encodings and with the separators that spreadsheets write."""

import codecs
import csv
from collections.abc import Generator, Iterable, Iterator
from io import StringIO, TextIOWrapper
from itertools import chain
from typing import BinaryIO

from avsnn.errors import UserError

# Encodings by the mark at the start of a file, longest mark first: the mark of UTF-16 starts the
# mark of UTF-32.
ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
    (codecs.BOM_UTF8, "UTF-8-SIG"),
)
# What spreadsheets put between the fields of a table.
SEPARATORS = (",", ";", "\t")

_ENCODE = "save the file as UTF-8"


def read_rows(text: str, name: str) -> Iterator[list[str]]:
    """Yield the rows of a table that are not empty.

    Raises:
        UserError: the text is no CSV.
    """
    # Without newline="", the reader would lose the line break inside a quoted text.
    return _rows(StringIO(text, newline=""), text.partition("\n")[0], name)


def _rows(lines: Iterable[str], first_line: str, name: str) -> Iterator[list[str]]:
    """Yield the rows that are not empty.

    Args:
        lines: the lines, each with its line break.
        first_line: the first line, which shows what separates the fields.
        name: name of the table in error messages.
    """
    separator = max(SEPARATORS, key=first_line.count)
    rows = csv.reader(lines, delimiter=separator, strict=True)
    try:
        for row in rows:
            if any(row):
                yield row
    except csv.Error as error:
        raise UserError(f"{name}: line {rows.line_num}: {error}; mend the line.") from None


def rows_of_file(file: BinaryIO, name: str) -> Generator[list[str], None, None]:
    """Yield the rows of a file that are not empty, from the start of the file.

    Raises:
        UserError: the file is no CSV, or no text in UTF-8 or in the encoding that the mark at the
            start of the file names.
    """
    file.seek(0)
    start = file.read(4)
    encoding = next((found for mark, found in ENCODINGS if start.startswith(mark)), "UTF-8")
    file.seek(0)
    # Without newline="", the reader would lose the line break inside a quoted text.
    lines = TextIOWrapper(file, encoding, newline="")
    try:
        first_line = lines.readline()
        if encoding == "UTF-8" and "\0" in first_line[:2]:
            raise UserError(f"{name}: looks like UTF-16 without a byte order mark; {_ENCODE}.")
        yield from _rows(chain([first_line], lines), first_line, name)
    except UnicodeDecodeError:
        raise _encoding_error(file, encoding, name) from None
    finally:
        # Otherwise the end of `lines` would close the file.
        lines.detach()


def _encoding_error(file: BinaryIO, encoding: str, name: str) -> UserError:
    """Return the error for a file that cannot be decoded."""
    if encoding.startswith("UTF-8"):
        file.seek(0)
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = line[error.start : error.start + 1]
                return UserError(
                    f"{name}: line {number} is not UTF-8 (byte 0x{byte.hex()}, which is "
                    f"{byte.decode('latin-1')!r} in Latin-1); {_ENCODE}."
                )
    return UserError(f"{name}: is {encoding} by its first bytes, and is cut or damaged; {_ENCODE}.")
