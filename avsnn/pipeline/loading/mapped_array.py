"""Reads rows of a Zarr array straight from the files of the array, on this machine.

Zarr takes a millisecond or more to look up a chunk, and training reads a random chunk for every
sample. The caches hold their chunks uncompressed, so a row is a piece of a file, and the page cache
of the operating system is the only cache. Opening an array costs nothing, whatever the size of the
array, and all loader processes share the page cache.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.formats.damaged import damaged_error, unreadable_error
from avsnn.pipeline.loading.open_files import KeptOpen

if TYPE_CHECKING:
    import zarr

CRC_BYTES = 4

# The most copies of shards in a store that an array keeps open.
COPIES_KEPT_OPEN = 128


class _Shard(NamedTuple):
    """An open shard.

    Attributes:
        data: the bytes of the shard.
        offsets: byte offset of every chunk.
        is_checked: whether a chunk was compared with its checksum. One check is enough: the checked
            bytes do not change while the shard is open.
    """

    data: mmap
    offsets: NDArray[np.uint64]
    is_checked: NDArray[np.bool_]


class MappedArray:
    """An array as ``formats/cache_layout.py`` describes the large array of a cache.

    The array is sharded along its rows. Every chunk has a crc32c and no compression. The shards
    that were read last stay open, as `OpenFiles` says.

    Args:
        folder: the folder of the array.
        array: the array, opened by Zarr, which knows the shape.
        local: gives the file of the shard with a number, where the file is a copy of a shard in a
            store; None takes the file in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        array: "zarr.Array[Any]",
        local: Callable[[int], Path] | None = None,
    ) -> None:
        assert array.shards is not None  # noqa: S101 - narrows the type
        self._folder, self._local = folder, local
        self._dtype = array.dtype
        self._row_shape = array.shape[1:]
        self._rows_per_shard, self._rows_per_chunk = array.shards[0], array.chunks[0]
        self._row_bytes = prod(self._row_shape) * self._dtype.itemsize
        self._shard: Callable[[int], _Shard]
        if local is None:
            kept = KeptOpen()
            self._shard = lambda number: kept.get(number, partial(self._open_shard, number))
        else:
            # A copy that was removed keeps its room on the disk while it is open.
            self._shard = lru_cache(COPIES_KEPT_OPEN)(self._open_shard)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows with these numbers, in the same order, ``[B, ...]``.

        Raises:
            UserError: a row is not what was written.
        """
        out = np.empty((len(rows), *self._row_shape), self._dtype)
        for i, row in enumerate(rows):
            number, row_in_shard = divmod(int(row), self._rows_per_shard)
            chunk, row_in_chunk = divmod(row_in_shard, self._rows_per_chunk)
            shard = self._shard(number)
            if not shard.is_checked[chunk]:
                self._check_chunk(shard, number, chunk)
            start = int(shard.offsets[chunk]) + row_in_chunk * self._row_bytes
            out[i] = np.frombuffer(shard.data, self._dtype, prod(self._row_shape), start).reshape(
                self._row_shape
            )
        return out

    def _open_shard(self, number: int) -> _Shard:
        path = self._path(number)
        try:
            with path.open("rb") as file:
                data = mmap(file.fileno(), 0, access=ACCESS_READ)
        except FileNotFoundError as error:
            if self._local is not None:
                # Another process has removed the copy at this moment.
                return self._open_shard(number)
            raise unreadable_error(path, error) from None
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
        if len(table) < size or not has_right_crc(table):
            raise damaged_error(path)
        spans = np.frombuffer(table, "<u8", 2 * chunks).reshape(chunks, 2)
        return _Shard(data, spans[:, 0], np.zeros(chunks, np.bool_))

    def _check_chunk(self, shard: _Shard, number: int, chunk: int) -> None:
        """Compare a chunk with its checksum.

        Raises:
            UserError: the chunk is cut or holds other bytes than were written.
        """
        start = int(shard.offsets[chunk])
        end = start + self._rows_per_chunk * self._row_bytes + CRC_BYTES
        if end > len(shard.data) or not has_right_crc(shard.data[start:end]):
            raise damaged_error(self._path(number))
        shard.is_checked[chunk] = True

    def _path(self, number: int) -> Path:
        if self._local is not None:
            return self._local(number)
        return self._folder.joinpath("c", str(number), *("0" for _ in self._row_shape))


def has_right_crc(data: bytes) -> bool:
    """Return whether the last four bytes are the crc32c of the bytes before."""
    body, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
    return len(crc) == CRC_BYTES and google_crc32c.value(body) == int.from_bytes(crc, "little")
