"""Helpers that open the sources of the prepared demo."""

from pathlib import Path

import numpy as np
import pytest

from avsnn.pipeline.loading.batch import Batch
from avsnn.pipeline.loading.cache_source import CacheSource
from avsnn.pipeline.loading.shard_source import ShardSource
from avsnn.pipeline.loading.source import Samples, Source
from tests.pipeline.conftest import prepared_demo


def open_source(root: Path, kind: str = "cache") -> Source:
    """Open the demo from its ``cache`` or from its ``shards``."""
    prepared = prepared_demo(root)
    folder = root / "demo"
    if kind == "shards":
        return ShardSource(
            shards=folder / prepared.shards,
            settings=prepared.settings,
        )
    return CacheSource(frames=folder / prepared.frames, audio=folder / prepared.audio)


def are_equal(one: Batch | Samples, other: Batch | Samples) -> bool:
    """Return whether two batches hold the same samples and random numbers in the same order."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))  # type: ignore[arg-type]


@pytest.fixture
def source(small_demo: Path) -> Source:
    """The demo, opened from its cache."""
    return open_source(small_demo)


@pytest.fixture(autouse=True)
def _own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy files of a store for each test anew: the tests write to the same URLs."""
    monkeypatch.setenv("AVSNN_CACHE_DIR", str(tmp_path / "copies"))
