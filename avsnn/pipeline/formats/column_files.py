"""Columns in an .npz file: plain numpy arrays, and texts as their bytes and the ends of the bytes.

The module `npz` writes and reads the arrays.
"""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.formats.damaged import damaged_error, unreadable_error
from avsnn.pipeline.formats.npz import read_array

# Texts that are Python objects at one time while a column is read.
TEXTS_AT_ONCE = 65_536


class TextPacker:
    """Packs texts one by one into two arrays: the UTF-8 of all texts, and the ends of the texts."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._utf8, self._ends = bytearray(), array("q")
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text."""
        self._utf8 += text.encode()
        self._ends.append(len(self._utf8))

    def columns(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the two arrays by their names in a file of columns.

        Args:
            name: name of the column of texts.
        """
        utf8, ends = np.frombuffer(self._utf8, np.uint8), np.array(self._ends, np.int64)
        return {f"{name}_utf8": utf8, f"{name}_ends": ends}


def unpack_texts(utf8: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[Any]:
    """Return the texts that `TextPacker` packed, as an array of the type `StringDType`.

    Raises:
        ValueError: the ends are impossible, or the bytes are no UTF-8.
    """
    last = ends[-1] if len(ends) else 0
    if last != len(utf8) or np.any(np.diff(ends, prepend=0) < 0):
        raise ValueError("texts that end in impossible places")
    texts = np.empty(len(ends), np.dtypes.StringDType())
    data, start = utf8.data, 0
    for first in range(0, len(ends), TEXTS_AT_ONCE):
        some = []
        for end in ends[first : first + TEXTS_AT_ONCE].tolist():
            some.append(str(data[start:end], "utf-8"))
            start = end
        texts[first : first + len(some)] = some
    return texts


class ColumnFile:
    """Reads the arrays of a file, each when it is asked for.

    Args:
        path: the file, which `write_npz` wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]) -> Any:
        """Return an array.

        Args:
            name: name of the array.
            dtype: the type that the array must have.
            shape: the shape that the array must have; None allows any length of an axis.

        Raises:
            UserError: the file is missing, cannot be read or is damaged, or the array is missing
                or has another type or shape.
        """
        try:
            found = read_array(self.path, name)
        except OSError as error:
            raise unreadable_error(self.path, error) from None
        except ValueError as error:
            raise damaged_error(self.path, str(error)) from None
        fits = found.ndim == len(shape) and all(
            wanted in (None, length) for wanted, length in zip(shape, found.shape, strict=True)
        )
        if found.dtype != dtype or not fits:
            raise damaged_error(self.path, f"{name} is {found.dtype}{list(found.shape)}")
        return found

    def read_texts(self, name: str, count: int | None) -> NDArray[Any]:
        """Return a column of texts, as an array of the type `StringDType`.

        Args:
            name: name of the column.
            count: the number of texts that the column must have; None allows any number.

        Raises:
            UserError: as `read`, or the arrays hold no texts.
        """
        utf8 = self.read(f"{name}_utf8", np.uint8, (None,))
        ends = self.read(f"{name}_ends", np.int64, (count,))
        try:
            return unpack_texts(utf8, ends)
        except ValueError:
            raise damaged_error(self.path, f"{name} are no texts") from None
