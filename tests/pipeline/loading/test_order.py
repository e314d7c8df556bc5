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


@given(seeds, epochs, st.integers(16, 60), st.integers(1, 4), st.integers(1, 4))
def test_every_sample_comes_once_but_for_the_last_partial_batch_whoever_works_on_it(
    seed: int, epoch: int, count: int, each: int, ranks: int
) -> None:
    batch_size = each * ranks
    rows = np.arange(100, 100 + count)
    parts = [
        [
            (int(row), float(place))
            for request in training_requests(
                rows, batch_size=batch_size, seed=seed, epoch=epoch, rank=rank, world_size=ranks
            )
            for row, place in zip(*request, strict=True)
        ]
        for rank in range(ranks)
    ]
    seen = [pair for part in parts for pair in part]
    assert len({row for row, _ in seen}) == len(seen) == count // batch_size * batch_size
    alone = training_requests(rows, batch_size=batch_size, seed=seed, epoch=epoch)
    assert sorted(seen) == sorted(
        (int(row), float(place)) for r in alone for row, place in zip(*r, strict=True)
    )


@given(seeds, epochs, st.integers(0, 9), st.sampled_from([1, 2, 3]))
def test_an_epoch_begun_in_the_middle_goes_on_as_if_it_had_not_been_cut(
    seed: int, epoch: int, first: int, ranks: int
) -> None:
    for rank in range(ranks):

        def requests(first_step: int, rank: int = rank) -> list[tuple[list[int], list[float]]]:
            found = training_requests(
                np.arange(62),
                batch_size=6,
                seed=seed,
                epoch=epoch,
                first_step=first_step,
                rank=rank,
                world_size=ranks,
            )
            return [(list(request.rows), list(request.frame_positions)) for request in found]

        assert requests(first) == requests(0)[first:]


@given(st.integers(0, 40), st.integers(1, 7))
def test_parts_put_together_are_the_whole(count: int, ranks: int) -> None:
    rows = np.arange(count)
    parts = [share_of_rank(rows, rank=rank, world_size=ranks) for rank in range(ranks)]
    assert np.array_equal(np.concatenate(parts), rows)


def test_evaluation_asks_for_every_row_once_in_order_and_its_middle_frame() -> None:
    requests = list(evaluation_requests(np.arange(5, 20), batch_size=7))
    assert [int(row) for request in requests for row in request.rows] == list(range(5, 20))
    assert {float(place) for request in requests for place in request.frame_positions} == {0.5}


def test_a_batch_larger_than_the_data_is_one_sentence() -> None:
    with pytest.raises(UserError, match="batch_size is 64 but only 3 clips"):
        steps_per_epoch(3, 64)


def test_every_step_has_a_seed_of_its_own() -> None:
    found = {
        step_seed(seed=s, epoch=e, step=k) for s in range(4) for e in range(4) for k in range(4)
    }
    assert len(found) == 64
