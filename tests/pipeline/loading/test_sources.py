import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from avsnn.errors import UserError
from avsnn.pipeline.formats.prepared import load_prepared
from avsnn.pipeline.loading import cache_source
from avsnn.pipeline.loading.cache_source import CacheSource
from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.mapped_array import MappedArray
from avsnn.pipeline.loading.order import BatchRequest, evaluation_requests, training_requests
from avsnn.pipeline.loading.shard_source import ShardSource
from avsnn.pipeline.loading.source import Batch, Source


def open_source(root: Path, kind: str = "cache") -> Source:
    prepared = load_prepared(root, "demo")
    assert prepared is not None
    folder = root / "demo"
    if kind == "shards":
        return ShardSource(
            shards=folder / prepared.shards,
            frames=prepared.settings.frames,
            audio=prepared.settings.audio,
        )
    return CacheSource(frames=folder / prepared.frames, audio=folder / prepared.audio)


@pytest.fixture
def source(small_demo: Path) -> Source:
    return open_source(small_demo)


def same(ours: Batch, theirs: Batch) -> bool:
    return (
        np.array_equal(ours.rows, theirs.rows)
        and torch.equal(ours.frames, theirs.frames)
        and torch.equal(ours.audio, theirs.audio)
        and torch.equal(ours.labels, theirs.labels)
    )


def read(root: Path, kind: str, workers: int) -> list[Batch]:
    opener = partial(open_source, root, kind)
    with Loader(opener, workers=workers, pin=False) as loader:
        rows = np.arange(len(loader.source.keys))
        return [
            batch
            for epoch in range(2)
            for batch in loader.read(training_requests(rows, batch_size=16, seed=1, epoch=epoch))
        ]


@pytest.mark.parametrize(("kind", "workers"), [("shards", 0), ("shards", 4), ("cache", 1)])
def test_cache_and_shards_give_the_same_batches_with_any_number_of_workers(
    small_demo: Path, kind: str, workers: int
) -> None:
    due = read(small_demo, "cache", 0)
    found = read(small_demo, kind, workers)
    assert len(due) == len(found) == 2 * (72 // 16)
    assert all(same(ours, theirs) for ours, theirs in zip(found, due, strict=True))


def in_memory(folder: Path, name: str) -> UPath:
    store = UPath(f"memory://{name}")
    store.fs.put(str(folder), store.path, recursive=True)
    return store


def test_a_store_gives_what_a_folder_gives(
    small_demo: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = load_prepared(small_demo, "demo")
    assert prepared is not None
    folder = small_demo / "demo"
    frames, audio, shards = (
        in_memory(folder / getattr(prepared, name), f"/test-stream/{name}")
        for name in ("frames", "audio", "shards")
    )
    request = BatchRequest(np.array([9, 2, 40]), np.array([0.1, 0.6, 0.9]))
    due = source.read(request)
    chosen = {"frames": prepared.settings.frames, "audio": prepared.settings.audio}
    openers: list[Callable[[], Source]] = [
        lambda: CacheSource(frames=frames, audio=audio),
        lambda: ShardSource(shards=shards, **chosen),  # type: ignore[arg-type]
    ]
    assert all(same(opener().read(request), due) for opener in openers)
    monkeypatch.setattr(cache_source, "IN_MEMORY_BYTES", 0)
    assert same(openers[0]().read(request), due)


class WholeFiles(MemoryFileSystem):
    """A store that pays no heed to the part that is asked for, as some HTTP servers do."""

    protocol = "whole"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:  # type: ignore[override]
        content: bytes = super().cat_file(path)
        return content


def test_shards_of_a_store_that_gives_whole_files_come_in_the_same_order(
    small_demo: Path, source: Source
) -> None:
    prepared = load_prepared(small_demo, "demo")
    assert prepared is not None
    register_implementation("whole", WholeFiles, clobber=True)
    shards = UPath("whole:///test-stream/shards")
    shards.fs.put(str(small_demo / "demo" / prepared.shards), shards.path, recursive=True)
    remote = ShardSource(
        shards=shards, frames=prepared.settings.frames, audio=prepared.settings.audio
    )
    assert "whole files only" in remote.note
    rows = np.arange(len(remote.keys))
    for request in training_requests(rows, batch_size=16, seed=1, epoch=0):
        assert same(remote.read(request), source.read(request))


def test_evaluation_reads_the_middle_frame(source: Source, small_demo: Path) -> None:
    batch = source.read(next(evaluation_requests(np.array([3]), batch_size=1)))
    prepared = load_prepared(small_demo, "demo")
    assert prepared is not None
    images = zarr.open_group(str(small_demo / "demo" / prepared.frames), mode="r")
    start, stop = np.asarray(images["offsets"][3:5])  # type: ignore[index]
    middle = np.asarray(images["frames"][start + (stop - start) // 2])  # type: ignore[index]
    assert np.array_equal(batch.frames[0].numpy(), middle)


def test_training_sees_more_than_one_frame_of_a_clip(source: Source) -> None:
    places = np.linspace(0, 0.99, 20)
    frames = source.read(BatchRequest(np.zeros(20, np.int64), places)).frames
    assert len({frame.numpy().tobytes() for frame in frames}) > 1


def test_a_pass_given_up_in_the_middle_does_not_disturb_the_next(small_demo: Path) -> None:
    with Loader(partial(open_source, small_demo), workers=2, pin=False) as loader:
        first = loader.read(evaluation_requests(np.arange(72), batch_size=4))
        next(first)
        first.close()
        again = list(loader.read(evaluation_requests(np.arange(8, 24), batch_size=4)))
    assert [int(row) for batch in again for row in batch.rows] == list(range(8, 24))


@settings(max_examples=30)
@given(
    count=st.integers(1, 40),
    per_shard=st.sampled_from([4, 8, 16]),
    per_chunk=st.sampled_from([1, 2, 4]),
    row=st.sampled_from([(3,), (2, 5), (1, 4, 3)]),
    dtype=st.sampled_from(["uint8", "float32"]),
    data=st.data(),
)
def test_mapped_rows_are_those_that_zarr_reads(
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


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("strike", [flip, cut, Path.unlink])
def test_a_damaged_cache_is_one_sentence(
    small_demo: Path, tmp_path: Path, strike: Callable[[Path], object]
) -> None:
    root = shutil.copytree(small_demo, tmp_path / "data")
    strike(next((root / "demo" / "cache").glob("audio-*/audio/c/0/0/0/0")))
    with pytest.raises(UserError, match="is damaged; run 'avsnn repair'"):
        open_source(root).read(BatchRequest(np.arange(72), np.zeros(72)))
