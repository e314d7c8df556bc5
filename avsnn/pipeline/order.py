"""Which sample comes when, and what is drawn for it: pure functions of seed, epoch and sample.

Nothing here remembers anything. What a step trains on is computed from its number, so resuming in
the middle of an epoch costs nothing, and neither loader workers nor ranks change the order: a step
takes the next ``batch_size`` samples, whoever works on them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.errors import UserError


class Request(NamedTuple):
    """Samples to read together.

    Attributes:
        rows: which, ``[B]``.
        places: which frame of each, as a place in [0, 1) along its clip, ``[B]``.
    """

    rows: NDArray[np.int64]
    places: NDArray[np.float64]


def epoch_order(*, seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of ``count`` samples in an epoch."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches in ``count`` samples.

    Raises:
        UserError: there is none.
    """
    if count < batch_size:
        raise UserError(
            f"batch_size is {batch_size} but only {count} clips are there to train on; "
            "lower it with --set batch_size=N."
        )
    return count // batch_size


def shared_out(rows: NDArray[np.int64], *, rank: int, ranks: int) -> NDArray[np.int64]:
    """The part of a batch, or of all rows, that one of ``ranks`` processes works on.

    The parts put together in the order of ranks are the whole. Where the count is no multiple of
    ``ranks``, the first parts are one longer: nothing is repeated or left out.
    """
    return np.array_split(rows, ranks)[rank]


def training_requests(
    rows: NDArray[np.int64],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    first_step: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Request]:
    """What the steps of an epoch train on: shuffled, a random frame of each clip.

    The last partial batch is dropped: ``len(rows) % batch_size`` samples sit out this epoch, others
    the next.

    Args:
        rows: the training part.
        batch_size: samples of a step, over all ranks.
        seed: of the run.
        epoch: from 0.
        first_step: of this epoch, from 0; those before it are not gone through.
        rank: of this process.
        ranks: how many there are.

    Raises:
        UserError: there are fewer rows than one batch takes.
    """
    steps = steps_per_epoch(len(rows), batch_size)
    shuffled = rows[epoch_order(seed=seed, epoch=epoch, count=len(rows))]
    for step in range(first_step, steps):
        batch = shuffled[step * batch_size : (step + 1) * batch_size]
        mine = shared_out(batch, rank=rank, ranks=ranks)
        yield Request(mine, sample_draws(seed=seed, epoch=epoch, rows=mine, count=1)[:, 0])


def evaluation_requests(rows: NDArray[np.int64], *, batch_size: int) -> Iterator[Request]:
    """Every row once, in order, the middle frame of each clip."""
    for start in range(0, len(rows), batch_size):
        block = rows[start : start + batch_size]
        yield Request(block, np.full(len(block), 0.5))


def sample_draws(
    *, seed: int, epoch: int, rows: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """``count`` uniform draws in [0, 1) for each sample, ``[B, count]``.

    They depend on the seed, the epoch and the sample alone: neither order nor batch changes how a
    sample is augmented.
    """
    # Counters of one key: the last word is the row, so the streams of two rows never meet.
    streams = (np.random.Philox(key=[seed, epoch], counter=[0, 0, 1, int(row)]) for row in rows)
    return np.stack([np.random.Generator(stream).random(count) for stream in streams])


def sample_noise(
    *, seed: int, epoch: int, rows: NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Standard normal noise for each sample, ``[B, *shape]``; as :func:`sample_draws`."""
    streams = (np.random.Philox(key=[seed, epoch], counter=[0, 0, 2, int(row)]) for row in rows)
    return np.stack(
        [np.random.Generator(s).standard_normal(shape, dtype=np.float32) for s in streams]
    )


def step_seed(*, seed: int, epoch: int, step: int) -> int:
    """A seed for what a network draws by itself in a step (SCA's position bias, as published)."""
    return int(np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0])
