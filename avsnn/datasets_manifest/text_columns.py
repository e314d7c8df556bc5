"""Columns of texts: which texts are the same, and where a text stands, in a few bytes a text.

A dictionary of a million texts needs 200 MB. The hashes of the texts, in order, need 16 MB.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# An array of the type `StringDType`, which holds texts of any length without an object for each.
Texts = NDArray[Any]


def empty_texts(count: int) -> Texts:
    """Return a column of empty texts."""
    return np.empty(count, np.dtypes.StringDType())


def texts_of(values: Iterable[str]) -> Texts:
    """Return a column of texts."""
    return np.array([*values], np.dtypes.StringDType())


def hash_texts(texts: Iterable[str], count: int) -> NDArray[np.int64]:
    """Return the hash of each text, which is the same only within this process, ``[count]``."""
    return np.fromiter(map(hash, texts), np.int64, count)


class TextSearch:
    """Finds texts in a column of texts.

    Args:
        hashes: the hash of each text, from `hash_texts`.
        texts_at: returns the texts in some rows.
    """

    def __init__(
        self, hashes: NDArray[np.int64], texts_at: Callable[[NDArray[np.int64]], Texts]
    ) -> None:
        self._texts_at = texts_at
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]

    @classmethod
    def of(cls, texts: Texts) -> "TextSearch":
        """Return the search in a column."""
        return cls(hash_texts(texts, len(texts)), texts.__getitem__)

    def distinct(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Number the distinct texts in the order in which they appear first.

        Returns:
            the number of the text in each row, and the first row of each distinct text.
        """
        starts = np.ones(len(self._rows), np.bool_)
        repeats = np.flatnonzero(self._hashes[1:] == self._hashes[:-1]) + 1
        texts, before = (self._texts_at(self._rows[repeats - step]) for step in (0, 1))
        if np.any(texts != before):
            # Two texts have one hash, which happens once in many billion years.
            _, first, found = np.unique(
                self._texts_at(np.arange(len(self._rows))), return_index=True, return_inverse=True
            )
        else:
            starts[repeats] = False
            first = self._rows[starts]
            found = np.empty(len(self._rows), np.int64)
            found[self._rows] = np.cumsum(starts) - 1
        order = np.argsort(first)
        number = np.empty(len(order), np.int64)
        number[order] = np.arange(len(order))
        return number[found], first[order]

    def find(self, wanted: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each text that is wanted, -1 where no row has the text."""
        found = np.full(len(wanted), -1)
        if not len(self._rows) or not len(wanted):
            return found
        hashes, texts = hash_texts(wanted, len(wanted)), texts_of(wanted)
        places = np.searchsorted(self._hashes, hashes)
        open_ = np.arange(len(wanted))
        while len(open_):
            inside = places[open_] < len(self._rows)
            open_ = open_[inside]
            open_ = open_[self._hashes[places[open_]] == hashes[open_]]
            rows = self._rows[places[open_]]
            is_same = self._texts_at(rows) == texts[open_]
            found[open_[is_same]] = rows[is_same]
            open_ = open_[~is_same]
            places[open_] += 1
        return found
