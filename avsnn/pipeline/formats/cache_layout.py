"""The layout of a Zarr cache: a group with one large array and a few small arrays.

The large array is sharded along its rows. Every chunk has a crc32c and no compression, so a row is
a piece of a file (``loading/mapped_array.py`` reads rows that way). Plain ``zarr`` reads the group.

The clips are divided into groups by the hash of their keys (``formats/membership.py``), and a group
begins at the first row of a Zarr shard. So a clip that is added or removed changes the shards of
its own group alone. The rows between the last clip of a group and the next group are unused, and
take no room on the disk. The small array ``rows`` ``[N, 2]`` says for every clip where its rows
begin and how many they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import zarr
    from numpy.typing import NDArray

# Number of clips in a group, at most.
CLIPS_PER_GROUP = 128

# A reader must read a whole chunk for a single row, so a chunk is small; a disk reads smaller
# pieces no faster.
CHUNK_BYTES = 2**18

# The codecs that the arrays of a cache name. A reader refuses every other codec, because a codec
# decides what happens to the bytes of a file: a codec of pickles would execute them.
CODECS = frozenset({"bytes", "crc32c", "sharding_indexed", "vlen-utf8"})


def create_row_array(
    group: zarr.Group,
    name: str,
    *,
    rows: int,
    rows_per_shard: int,
    row_shape: tuple[int, ...],
    dtype: str,
) -> zarr.Array[Any]:
    """Create the large array ``[rows, *row_shape]``; its rows are still to be written."""
    from zarr.codecs import Crc32cCodec

    row_bytes = int(np.prod(row_shape)) * np.dtype(dtype).itemsize
    rows_per_chunk = 1
    while rows_per_chunk < rows_per_shard and 2 * rows_per_chunk * row_bytes <= CHUNK_BYTES:
        rows_per_chunk *= 2
    return group.create_array(
        name,
        shape=(rows, *row_shape),
        dtype=dtype,
        chunks=(rows_per_chunk, *row_shape),
        shards=(rows_per_shard, *row_shape),
        compressors=[Crc32cCodec()],
        fill_value=0,
        # Zarr reads a missing chunk as zeros. Every chunk is written, also a chunk of zeros, so a
        # lost chunk is noticed.
        config={"write_empty_chunks": True},
    )


def create_small_array(group: zarr.Group, name: str, values: NDArray[Any]) -> None:
    """Create and write an array that is a single chunk."""
    from zarr.codecs import Crc32cCodec

    dtype: Any = str if values.dtype.kind in "TU" else values.dtype
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=dtype,
        chunks=values.shape,
        compressors=[Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    array[:] = values


def shard_file(array: str, number: int, row_dimensions: int) -> str:
    """Return the path of a shard of the large array, below the group's folder."""
    return "/".join([array, "c", str(number), *("0" * row_dimensions)])


def small_array_files(array: str, dimensions: int) -> tuple[str, str]:
    """Return the paths of the files of a small array, below the group's folder."""
    return f"{array}/zarr.json", "/".join([array, "c", *("0" * dimensions)])
