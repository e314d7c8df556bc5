"""Helpers that open the sources of the prepared demo."""

from pathlib import Path

import numpy as np
import pytest
import torch

from avsnn.pipeline.loading.cache_source import CacheSource
from avsnn.pipeline.loading.shard_source import ShardSource
from avsnn.pipeline.loading.source import Batch, Source
from tests.pipeline.conftest import prepared_demo


def open_source(root: Path, kind: str = "cache") -> Source:
    """Open the demo from its ``cache`` or from its ``shards``."""
    prepared = prepared_demo(root)
    folder = root / "demo"
    if kind == "shards":
        return ShardSource(
            shards=folder / prepared.shards,
            frames=prepared.settings.frames,
            audio=prepared.settings.audio,
        )
    return CacheSource(frames=folder / prepared.frames, audio=folder / prepared.audio)


def are_equal(one: Batch, other: Batch) -> bool:
    """Return whether two batches hold the same samples in the same order."""
    return (
        np.array_equal(one.rows, other.rows)
        and torch.equal(one.frames, other.frames)
        and torch.equal(one.audio, other.audio)
        and torch.equal(one.labels, other.labels)
    )


@pytest.fixture
def source(small_demo: Path) -> Source:
    """The demo, opened from its cache."""
    return open_source(small_demo)
