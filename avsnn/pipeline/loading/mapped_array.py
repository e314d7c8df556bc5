"""Rows of a Zarr array straight from its files, where they lie on this machine.

Zarr takes a millisecond or more for each chunk that it looks up; training wants a random one for
every sample. The caches hold their chunks uncompressed, so a row is a piece of a file, and the
system's page cache is the only cache there is: opening costs nothing, whatever the size, and loader
processes share it.
"""

from functools import lru_cache
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from avsnn.errors import UserError

if TYPE_CHECKING:
    import zarr

CRC_BYTES = 4


class MappedArray:
    """An array as ``featurize`` writes it: sharded along its rows, crc32c in every chunk, no more.

    Args:
        folder: the array's.
        array: the same, opened by Zarr, which knows its shape.
    """

    def __init__(self, folder: Path, array: "zarr.Array[Any]") -> None:
        assert array.shards is not None  # noqa: S101 - narrows the type
        self._folder = folder
        self._dtype = array.dtype
        self._row = array.shape[1:]
        self._in_shard, self._in_chunk = array.shards[0], array.chunks[0]
        self._row_bytes = prod(self._row) * self._dtype.itemsize
        self._whole: set[tuple[int, int]] = set()
        self._shard = lru_cache(maxsize=None)(self._open)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Those rows, in that order, ``[B, ...]``.

        Raises:
            UserError: one of them is not what was written.
        """
        out = np.empty((len(rows), *self._row), self._dtype)
        for place, row in enumerate(rows):
            number, inside = divmod(int(row), self._in_shard)
            chunk, inside = divmod(inside, self._in_chunk)
            data, offsets = self._shard(number)
            start = int(offsets[chunk])
            if (number, chunk) not in self._whole:
                self._require_whole(data, start, number, chunk)
            out[place] = np.frombuffer(
                data, self._dtype, prod(self._row), start + inside * self._row_bytes
            ).reshape(self._row)
        return out

    def _open(self, number: int) -> tuple[mmap, NDArray[np.uint64]]:
        path = self._path(number)
        try:
            with path.open("rb") as file:
                data = mmap(file.fileno(), 0, access=ACCESS_READ)
        except (OSError, ValueError):
            raise self._damaged(number) from None
        chunks = self._in_shard // self._in_chunk
        size = 16 * chunks + CRC_BYTES
        # Zarr v3 ends a shard with offset and size of every chunk, and their checksum.
        table = data[-size:]
        if len(table) < size or not _is_whole(table):
            raise self._damaged(number)
        spans = np.frombuffer(table, "<u8", 2 * chunks).reshape(chunks, 2)
        return data, spans[:, 0]

    def _require_whole(self, data: mmap, start: int, number: int, chunk: int) -> None:
        """Once for every chunk; what was read by then is in the page cache and stays as it is."""
        size = self._in_chunk * self._row_bytes + CRC_BYTES
        if start + size > len(data) or not _is_whole(data[start : start + size]):
            raise self._damaged(number)
        self._whole.add((number, chunk))

    def _path(self, number: int) -> Path:
        return self._folder.joinpath("c", str(number), *("0" for _ in self._row))

    def _damaged(self, number: int) -> UserError:
        return UserError(
            f"{self._path(number)} is damaged; run 'avsnn repair' with the data set's name."
        )


def _is_whole(data: bytes) -> bool:
    body, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
    return int(google_crc32c.value(body)) == int.from_bytes(crc, "little")
