from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.errors import UserError
from avsnn.pipeline import stream
from avsnn.pipeline.prepare import load_prepared
from avsnn.pipeline.stream import (
    ZarrSource,
    epoch_order,
    sample_draws,
    stream_epoch,
    stream_once,
)

seeds = st.integers(0, 2**32 - 1)
epochs = st.integers(0, 1000)


@pytest.fixture
def source(small_demo: Path) -> ZarrSource:
    return open_source(small_demo)


def open_source(root: Path) -> ZarrSource:
    prepared = load_prepared(root, "demo")
    assert prepared is not None
    folder = root / "demo"
    return ZarrSource(frames=folder / prepared.frames, audio=folder / prepared.audio)


@given(seeds, epochs, st.integers(1, 500))
def test_an_epoch_is_a_permutation_and_a_pure_function(seed: int, epoch: int, count: int) -> None:
    order = epoch_order(seed=seed, epoch=epoch, count=count)
    assert sorted(order) == list(range(count))
    assert np.array_equal(order, epoch_order(seed=seed, epoch=epoch, count=count))


def test_epochs_and_seeds_give_other_orders() -> None:
    orders = {tuple(epoch_order(seed=s, epoch=e, count=50)) for s in range(5) for e in range(5)}
    assert len(orders) == 25


@given(seeds, epochs, st.permutations(range(12)))
def test_what_a_sample_draws_does_not_depend_on_its_batch(
    seed: int, epoch: int, order: list[int]
) -> None:
    together = sample_draws(seed=seed, epoch=epoch, rows=np.array(order), count=5)
    for place, row in enumerate(order):
        alone = sample_draws(seed=seed, epoch=epoch, rows=np.array([row]), count=5)
        assert np.array_equal(together[place], alone[0])
    assert len(np.unique(together)) == together.size


def test_an_epoch_gives_every_sample_once_but_for_the_last_partial_batch(
    source: ZarrSource,
) -> None:
    rows = np.arange(len(source.keys))
    batches = list(stream_epoch(source, rows, batch_size=7, seed=1, epoch=0))
    seen = [int(row) for batch in batches for row in batch.rows]
    assert len(seen) == len(set(seen)) == len(rows) // 7 * 7
    order = rows[epoch_order(seed=1, epoch=0, count=len(rows))]
    assert seen == list(order[: len(seen)])


def test_evaluation_gives_every_sample_once_in_order_with_its_middle_frame(
    source: ZarrSource, small_demo: Path
) -> None:
    rows = np.arange(5, len(source.keys))
    batches = list(stream_once(source, rows, batch_size=7))
    assert [int(row) for batch in batches for row in batch.rows] == list(rows)
    assert [int(x) for batch in batches for x in batch.labels] == [
        int(source.labels[row]) for row in rows
    ]


def test_training_sees_more_than_one_frame_of_a_clip(source: ZarrSource) -> None:
    rows = np.arange(len(source.keys))
    seen = set()
    for epoch in range(6):
        for batch in stream_epoch(source, rows, batch_size=len(rows), seed=0, epoch=epoch):
            place = int(np.flatnonzero(batch.rows == 0)[0])
            seen.add(batch.frames[place].numpy().tobytes())
    assert len(seen) > 1


def test_reading_from_disk_gives_what_reading_from_memory_gives(
    small_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = open_source(small_demo)
    monkeypatch.setattr(stream, "IN_MEMORY_BYTES", 0)
    on_disk = open_source(small_demo)
    rows = np.array([9, 2, 40])
    draws = np.array([0.1, 0.6, 0.9])
    ours, theirs = on_disk.read(rows, draws), in_memory.read(rows, draws)
    assert (ours.frames == theirs.frames).all()
    assert (ours.audio == theirs.audio).all()


def test_a_batch_larger_than_the_data_is_one_sentence(source: ZarrSource) -> None:
    with pytest.raises(UserError, match="batch_size is 64 but only 3 clips"):
        list(stream_epoch(source, np.arange(3), batch_size=64, seed=0, epoch=0))
