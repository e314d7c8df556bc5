import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.errors import UserError
from avsnn.pipeline.loading.order import (
    epoch_order,
    evaluation_requests,
    sample_draws,
    share_of_rank,
    step_seed,
    steps_per_epoch,
    training_requests,
)

seeds = st.integers(0, 2**32 - 1)
epochs = st.integers(0, 1000)


@given(seeds, epochs, st.integers(1, 500))
def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_only(
    seed: int, epoch: int, count: int
) -> None:
    order, again = (
        epoch_order(seed=seed, epoch=epoch, count=count)(np.arange(count)) for _ in range(2)
    )
    assert sorted(order) == list(range(count))
    assert np.array_equal(order, again)


def test_every_epoch_and_every_seed_has_its_own_order() -> None:
    orders = {
        tuple(epoch_order(seed=s, epoch=e, count=50)(np.arange(50)))
        for s in range(5)
        for e in range(5)
    }
    assert len(orders) == 25


@given(seeds, epochs, st.permutations(range(12)))
def test_the_random_numbers_of_a_sample_do_not_depend_on_its_batch(
    seed: int, epoch: int, order: list[int]
) -> None:
    together = sample_draws(seed=seed, epoch=epoch, rows=np.array(order), count=5)
    for position, row in enumerate(order):
        alone = sample_draws(seed=seed, epoch=epoch, rows=np.array([row]), count=5)
        assert np.array_equal(together[position], alone[0])
    assert len(np.unique(together)) == together.size


@given(seeds, epochs, st.integers(16, 60), st.integers(1, 4), st.integers(1, 4))
def test_any_number_of_processes_reads_the_same_samples_each_once_without_the_partial_batch(
    seed: int, epoch: int, count: int, per_process: int, world_size: int
) -> None:
    batch_size = per_process * world_size
    rows = np.arange(100, 100 + count)
    shares = [
        [
            int(row)
            for request in training_requests(
                rows,
                batch_size=batch_size,
                seed=seed,
                epoch=epoch,
                rank=rank,
                world_size=world_size,
            )
            for row in request.rows
        ]
        for rank in range(world_size)
    ]
    read = [row for share in shares for row in share]
    assert len(set(read)) == len(read) == count // batch_size * batch_size
    alone = training_requests(rows, batch_size=batch_size, seed=seed, epoch=epoch)
    assert sorted(read) == sorted(int(row) for request in alone for row in request.rows)


@given(seeds, epochs, st.integers(0, 9), st.sampled_from([1, 2, 3]))
def test_an_epoch_that_starts_at_a_later_step_gives_the_same_rest(
    seed: int, epoch: int, first: int, world_size: int
) -> None:
    for rank in range(world_size):

        def requests(first_step: int, rank: int = rank) -> list[tuple[list[int], int | None]]:
            found = training_requests(
                np.arange(62),
                batch_size=6,
                seed=seed,
                epoch=epoch,
                first_step=first_step,
                rank=rank,
                world_size=world_size,
            )
            return [(list(request.rows), request.epoch) for request in found]

        assert requests(first) == requests(0)[first:]


@given(st.integers(0, 40), st.integers(1, 7))
def test_the_shares_of_all_processes_are_the_whole(count: int, world_size: int) -> None:
    rows = np.arange(count)
    shares = [share_of_rank(rows, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert np.array_equal(np.concatenate(shares), rows)


def test_evaluation_requests_every_row_once_in_order_without_random_numbers() -> None:
    requests = list(evaluation_requests(np.arange(5, 20), batch_size=7))
    assert [int(row) for request in requests for row in request.rows] == list(range(5, 20))
    assert {request.epoch for request in requests} == {None}


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"batch_size is 64, .* only 3 clips .*; try --set batch_size=2"
    ):
        steps_per_epoch(3, 64)


def test_every_step_has_its_own_seed() -> None:
    found = {
        step_seed(seed=s, epoch=e, step=k) for s in range(4) for e in range(4) for k in range(4)
    }
    assert len(found) == 64
