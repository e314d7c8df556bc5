import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from avsnn.pipeline.loading.mapped_array import MappedArray


@settings(max_examples=30)
@given(
    count=st.integers(1, 40),
    per_shard=st.sampled_from([4, 8, 16]),
    per_chunk=st.sampled_from([1, 2, 4]),
    row=st.sampled_from([(3,), (2, 5), (1, 4, 3)]),
    dtype=st.sampled_from(["uint8", "float32"]),
    data=st.data(),
)
def test_a_mapped_array_gives_the_rows_that_zarr_reads(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    per_shard: int,
    per_chunk: int,
    row: tuple[int, ...],
    dtype: str,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("mapped")
    array = zarr.open_group(str(folder), mode="w").create_array(
        "x",
        shape=(count, *row),
        dtype=dtype,
        chunks=(per_chunk, *row),
        shards=(per_shard, *row),
        compressors=[zarr.codecs.Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    array[:] = np.random.default_rng(0).integers(0, 200, array.shape).astype(dtype)
    rows = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=9)), np.int64)
    mapped = MappedArray(folder / "x", array)
    assert np.array_equal(mapped.take(rows), np.asarray(array[:])[rows])
