"""The shuffle of a few shards at a time: every clip once, whatever the shards are."""

from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from avsnn.pipeline.loading.order import training_requests
from avsnn.pipeline.loading.shard_windows import ShardWindows

sizes = st.lists(st.integers(1, 30), min_size=1, max_size=20)


def shards_of(sizes: list[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(sizes)) * 3, sizes)


@given(sizes, st.integers(1, 25), st.integers(0, 2**63), st.integers(0, 100))
def test_every_clip_comes_once_and_every_shard_in_one_stretch(
    sizes: list[int], window: int, seed: int, epoch: int
) -> None:
    shards = shards_of(sizes)
    order = ShardWindows(shards, window).order(seed=seed, epoch=epoch)
    clips = order(np.arange(len(shards)))
    assert sorted(clips) == list(range(len(shards)))
    opened: set[int] = set()
    closed: set[int] = set()
    for shard in shards[clips]:
        assert shard not in closed
        if shard not in opened and len(opened) == window:
            closed |= opened
            opened = set()
        opened.add(int(shard))


@given(sizes, st.integers(1, 25), st.integers(0, 99), st.integers(1, 20))
def test_a_batch_in_the_middle_of_an_epoch_needs_no_batch_before(
    sizes: list[int], window: int, seed: int, length: int
) -> None:
    windows = ShardWindows(shards_of(sizes), window)
    count = sum(sizes)
    whole = windows.order(seed=seed, epoch=1)(np.arange(count))
    first = count // 2
    some = np.arange(first, min(count, first + length))
    assert np.array_equal(windows.order(seed=seed, epoch=1)(some), whole[some])


def test_the_clips_of_a_window_are_mixed_and_every_epoch_has_other_windows() -> None:
    windows = ShardWindows(shards_of([100] * 40), 4)
    firsts = []
    for epoch in range(3):
        clips = windows.order(seed=1, epoch=epoch)(np.arange(400))
        firsts.append(frozenset(clips.tolist()))
        # All four shards are in every quarter of the window, about equally.
        for quarter in np.split(clips // 100, 4):
            _, counts = np.unique(quarter, return_counts=True)
            assert len(counts) == 4
            assert counts.min() > 10
    assert len(set(firsts)) == 3


def test_a_batch_says_from_how_many_shards_it_is() -> None:
    shards = shards_of([100] * 40)
    few = ShardWindows(shards, 1).shards_of_a_batch(seed=1, batch_size=50)
    more = ShardWindows(shards, 4).shards_of_a_batch(seed=1, batch_size=50)
    every = ShardWindows(shards, 40).shards_of_a_batch(seed=1, batch_size=50)
    assert few == 1
    assert 3.9 < more <= 4
    # 50 of 4,000 clips, drawn at random, are of 28.9 of 40 shards on average.
    assert 27 < every < 31


@given(st.sampled_from([1, 2, 3, 4]))
def test_any_number_of_processes_reads_the_same_batches(world_size: int) -> None:
    windows = ShardWindows(shards_of([13] * 10), 3)
    rows = np.arange(1000, 1130)

    def batches(rank: int, world_size: int) -> list[list[int]]:
        requests = training_requests(
            rows,
            batch_size=12,
            seed=2,
            epoch=1,
            windows=windows,
            rank=rank,
            world_size=world_size,
        )
        return [request.rows.tolist() for request in requests]

    shares = [batches(rank, world_size) for rank in range(world_size)]
    together = [[*chain(*batch)] for batch in zip(*shares, strict=True)]
    assert together == batches(0, 1)
