from pathlib import Path

import numpy as np
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from avsnn.pipeline.loading.batch import read_batch
from avsnn.pipeline.loading.order import training_requests
from avsnn.pipeline.loading.shard_source import ShardSource
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.train_settings import TrainSettings
from tests.pipeline.conftest import prepared_demo
from tests.pipeline.loading.conftest import are_equal


def test_shards_in_a_store_give_the_same_batch_as_a_folder(
    small_demo: Path, source: Source
) -> None:
    prepared = prepared_demo(small_demo)
    shards = UPath("memory:///test-stream/shards")
    shards.fs.put(str(small_demo / "demo" / prepared.shards), shards.path, recursive=True)
    remote = ShardSource(shards=shards, settings=prepared.settings)
    rows, positions = np.array([9, 2, 40]), np.array([0.1, 0.6, 0.9])
    assert are_equal(remote.read(rows, positions), source.read(rows, positions))


class WholeFiles(MemoryFileSystem):
    """A store that ignores byte ranges and always returns whole files, as some HTTP servers do."""

    protocol = "whole"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:  # type: ignore[override]
        content: bytes = super().cat_file(path)
        return content


def test_shards_in_a_store_without_byte_ranges_give_the_same_batches(
    small_demo: Path, source: Source
) -> None:
    prepared = prepared_demo(small_demo)
    register_implementation("whole", WholeFiles, clobber=True)
    shards = UPath("whole:///test-stream/shards")
    shards.fs.put(str(small_demo / "demo" / prepared.shards), shards.path, recursive=True)
    remote = ShardSource(shards=shards, settings=prepared.settings)
    assert "whole files only" in remote.note
    rows = np.arange(len(remote.keys))
    settings = TrainSettings()
    for request in training_requests(rows, batch_size=16, seed=1, epoch=0):
        remote_batch, batch = (read_batch(each, request, settings) for each in (remote, source))
        assert are_equal(remote_batch, batch)
