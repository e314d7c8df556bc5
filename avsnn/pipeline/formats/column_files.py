"""Columns in an .npz file: plain numpy arrays, and texts as their bytes and the ends of the bytes.

Equal columns give equal bytes. Nothing in such a file is pickled.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.formats.damaged import damaged_error, unreadable_error

# Texts that are turned into objects at one time.
TEXTS_AT_ONCE = 65_536

Columns = dict[str, NDArray[Any]]


def pack_texts(name: str, texts: Iterable[str]) -> Columns:
    """Return the two columns that hold a column of texts: the UTF-8 of all texts, and their ends.

    Args:
        name: name of the column of texts.
        texts: the texts.
    """
    data, ends = bytearray(), []
    chunks = [np.zeros(0, np.int64)]
    for text in texts:
        data += text.encode()
        ends.append(len(data))
        if len(ends) == TEXTS_AT_ONCE:
            chunks.append(np.array(ends, np.int64))
            ends.clear()
    chunks.append(np.array(ends, np.int64))
    return {f"{name}_utf8": np.frombuffer(data, np.uint8), f"{name}_ends": np.concatenate(chunks)}


def write_columns(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write columns to a file; the bytes depend on the columns alone."""
    with path.open("wb") as file:
        # `savez` gives every array of the archive the date 1980-01-01.
        np.savez(file, allow_pickle=False, **dict(columns))


class ColumnFile:
    """Reads columns from a file, each when it is asked for.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]) -> Any:
        """Return a column.

        Args:
            name: name of the column.
            dtype: the type that the column must have.
            shape: the shape that the column must have; None allows any length of an axis.

        Raises:
            UserError: the file is missing, cannot be read or is damaged, or the column is missing
                or has another type or shape.
        """
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                column = archive[name]
        except OSError as error:
            raise unreadable_error(self.path, error) from None
        except Exception:
            # `zipfile` and numpy raise errors of many types for damaged bytes, such as BadZipFile,
            # EOFError, KeyError, ValueError and MemoryError.
            raise damaged_error(self.path) from None
        wanted = [found if length is None else length for found, length in zip(
            column.shape, shape, strict=False
        )]
        if column.dtype != dtype or column.ndim != len(shape) or list(column.shape) != wanted:
            raise damaged_error(
                self.path, f"{name} is {column.dtype} {list(column.shape)}, which nobody wrote"
            )
        return column

    def read_texts(self, name: str, count: int | None) -> NDArray[Any]:
        """Return a column of texts, as an array of the type `StringDType`.

        Args:
            name: name of the column.
            count: the number of texts that the column must have; None allows any number.

        Raises:
            UserError: as `read`, or the bytes are no texts.
        """
        data = memoryview(self.read(f"{name}_utf8", np.uint8, (None,)))
        ends = self.read(f"{name}_ends", np.int64, (count,))
        if np.any(np.diff(ends, prepend=0) < 0) or ends[-1:].tolist() not in ([], [len(data)]):
            raise damaged_error(self.path, f"the texts of {name} end in impossible places")
        texts = np.empty(len(ends), np.dtypes.StringDType())
        start = 0
        try:
            for first in range(0, len(ends), TEXTS_AT_ONCE):
                some = []
                for end in ends[first : first + TEXTS_AT_ONCE].tolist():
                    some.append(str(data[start:end], "utf-8"))
                    start = end
                texts[first : first + len(some)] = some
        except UnicodeDecodeError:
            raise damaged_error(self.path, f"{name} is no text") from None
        return texts
