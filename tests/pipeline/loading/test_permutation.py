"""Orders of samples by arithmetic: every sample once, and as mixed as orders of numpy."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from avsnn.pipeline.loading.order import epoch_order
from avsnn.pipeline.loading.permutation import LARGEST_IN_MEMORY, order_by_arithmetic

MANY = 100_000_000


def by_arithmetic(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    order = order_by_arithmetic(count, np.random.Philox(key=[seed, epoch]))
    return order(np.arange(count))


@given(st.integers(0, 2**63), st.integers(0, 1000), st.integers(1, 3000))
def test_every_sample_comes_once(seed: int, epoch: int, count: int) -> None:
    assert sorted(by_arithmetic(seed, epoch, count)) == list(range(count))


@given(st.integers(1, 3000), st.data())
def test_a_sample_depends_on_its_position_alone(count: int, data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.integers(0, count - 1), max_size=20))
    order = order_by_arithmetic(count, np.random.Philox(key=[3, 1]))
    assert order(np.array(positions, np.int64)).tolist() == (
        by_arithmetic(3, 1, count)[positions].tolist()
    )


def test_every_epoch_and_every_seed_has_its_own_order() -> None:
    orders = {tuple(by_arithmetic(s, e, 50)) for s in range(5) for e in range(5)}
    assert len(orders) == 25


@pytest.mark.parametrize("count", [1008, 1520, 2**16 + 16])
def test_the_order_is_as_mixed_as_a_random_one(count: int) -> None:
    """Statistics of many orders lie where statistics of random permutations lie."""
    orders = np.stack([by_arithmetic(7, epoch, count) for epoch in range(2**18 // count)])
    bins = 16 * orders[:, : count // 2] // count
    # How often samples of each sixteenth stand in the first half of the order.
    counts = np.bincount(bins.ravel(), minlength=16)
    assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())
    # Neighbours in an order are no neighbours among the samples, and no two orders are alike.
    for pair in (
        (orders[:, :-1], orders[:, 1:]),
        (orders[:, :-2], orders[:, 2:]),
        (orders[:-1], orders[1:]),
        (orders, np.broadcast_to(np.arange(count), orders.shape)),
    ):
        ones, others = (numbers.ravel().astype(np.float64) for numbers in pair)
        assert abs(np.corrcoef(ones, others)[0, 1]) < 5 / np.sqrt(len(ones))
    # One position in each order stands where it stood, on average.
    fixed = (orders == np.arange(count)).sum(1).mean()
    assert abs(fixed - 1) < 5 / np.sqrt(len(orders))


def test_a_large_set_has_an_order_that_takes_the_memory_of_a_batch() -> None:
    tracemalloc.start()
    order = epoch_order(seed=1, epoch=2, count=MANY)
    batch = order(np.arange(MANY - 512, MANY))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert len(np.unique(batch)) == 512
    assert 0 <= batch.min() < batch.max() < MANY
    assert abs(batch.mean() / MANY - 0.5) < 0.07


def test_the_order_of_a_set_that_fits_in_memory_is_the_order_of_earlier_versions() -> None:
    generator = np.random.Generator(np.random.Philox(key=[5, 3]))
    order = epoch_order(seed=5, epoch=3, count=1000)
    assert np.array_equal(order(np.arange(1000)), generator.permutation(1000))
    assert LARGEST_IN_MEMORY == 2**20
