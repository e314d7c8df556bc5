"""Reads rows of a Zarr array straight from the files of the array, on this machine.

Zarr takes a millisecond or more to look up a chunk, and training reads a random chunk for every
sample. The caches hold their chunks uncompressed, so a row is a piece of a file, and the page cache
of the operating system is the only cache. Opening an array costs nothing, whatever the size of the
array, and all loader processes share the page cache.
"""

from functools import lru_cache
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.formats.damaged import damaged_error, unreadable_error

if TYPE_CHECKING:
    import zarr

CRC_BYTES = 4


class MappedArray:
    """An array as ``formats/cache_layout.py`` describes the large array of a cache.

    The array is sharded along its rows. Every chunk has a crc32c and no compression.

    Args:
        folder: the folder of the array.
        array: the array, opened by Zarr, which knows the shape.
    """

    def __init__(self, folder: Path, array: "zarr.Array[Any]") -> None:
        assert array.shards is not None  # noqa: S101 - narrows the type
        self._folder = folder
        self._dtype = array.dtype
        self._row_shape = array.shape[1:]
        self._rows_per_shard, self._rows_per_chunk = array.shards[0], array.chunks[0]
        self._row_bytes = prod(self._row_shape) * self._dtype.itemsize
        self._checked_chunks: set[tuple[int, int]] = set()
        # A shard that was opened stays open.
        self._shard = lru_cache(maxsize=None)(self._open_shard)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows with these numbers, in the same order, ``[B, ...]``.

        Raises:
            UserError: a row is not what was written.
        """
        out = np.empty((len(rows), *self._row_shape), self._dtype)
        for i, row in enumerate(rows):
            shard, row_in_shard = divmod(int(row), self._rows_per_shard)
            chunk, row_in_chunk = divmod(row_in_shard, self._rows_per_chunk)
            data, offsets = self._shard(shard)
            start = int(offsets[chunk])
            if (shard, chunk) not in self._checked_chunks:
                self._check_chunk(data, start, shard, chunk)
            out[i] = np.frombuffer(
                data, self._dtype, prod(self._row_shape), start + row_in_chunk * self._row_bytes
            ).reshape(self._row_shape)
        return out

    def _open_shard(self, shard: int) -> tuple[mmap, NDArray[np.uint64]]:
        """Return the bytes of a shard, and the byte offset of every chunk in the shard."""
        path = self._path(shard)
        try:
            with path.open("rb") as file:
                data = mmap(file.fileno(), 0, access=ACCESS_READ)
        except OSError as error:
            raise unreadable_error(path, error) from None
        except ValueError:
            # An empty file cannot be mapped.
            raise damaged_error(path) from None
        chunks = self._rows_per_shard // self._rows_per_chunk
        # Zarr v3 ends a shard with a table of the offset and the size of every chunk, and with the
        # checksum of this table.
        size = 16 * chunks + CRC_BYTES
        table = data[-size:]
        if len(table) < size or not _has_right_crc(table):
            raise damaged_error(self._path(shard))
        spans = np.frombuffer(table, "<u8", 2 * chunks).reshape(chunks, 2)
        return data, spans[:, 0]

    def _check_chunk(self, data: mmap, start: int, shard: int, chunk: int) -> None:
        """Compare a chunk with its checksum.

        One check of each chunk is enough: the checked bytes are in the page cache then, and do not
        change there.

        Raises:
            UserError: the chunk is cut or holds other bytes than were written.
        """
        size = self._rows_per_chunk * self._row_bytes + CRC_BYTES
        if start + size > len(data) or not _has_right_crc(data[start : start + size]):
            raise damaged_error(self._path(shard))
        self._checked_chunks.add((shard, chunk))

    def _path(self, shard: int) -> Path:
        return self._folder.joinpath("c", str(shard), *("0" for _ in self._row_shape))


def _has_right_crc(data: bytes) -> bool:
    """Return whether the last four bytes are the crc32c of the bytes before."""
    body, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
    return int(google_crc32c.value(body)) == int.from_bytes(crc, "little")
