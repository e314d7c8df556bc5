"""The order of samples and the random numbers of a sample: pure functions of seed and epoch.

No function here has a state. The samples of a step are computed from the number of the step, so
resuming in the middle of an epoch costs nothing. Neither loader workers nor ranks change the order:
a step takes the next ``batch_size`` samples, whichever process works on the samples.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.errors import UserError
from avsnn.pipeline.loading.parts import Rows
from avsnn.pipeline.loading.permutation import Order, random_order
from avsnn.pipeline.loading.shard_windows import ShardWindows

# Number of rows that are computed together.
ROWS_AT_ONCE = 4096


class BatchRequest(NamedTuple):
    """The samples of one batch.

    Attributes:
        rows: row of each sample, ``[B]``.
        epoch: number of the training epoch that the random numbers of the samples belong to, from
            0; None for evaluation, which augments nothing.
    """

    rows: NDArray[np.int64]
    epoch: int | None


def epoch_order(*, seed: int, epoch: int, count: int) -> Order:
    """Return the order of ``count`` samples in an epoch."""
    return random_order(count, np.random.Philox(key=[seed, epoch]))


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of whole batches in ``count`` samples.

    Raises:
        UserError: there are fewer samples than one batch takes.
    """
    if count < batch_size:
        # A power of 2 that leaves at least two steps, where there are clips enough.
        smaller = 2 ** max(1, count.bit_length() - 2)
        advice = f"try --set batch_size={smaller}" if count >= smaller else "prepare more clips"
        raise UserError(
            f"batch_size is {batch_size}, but there are only {count} clips to train on; {advice}."
        )
    return count // batch_size


def share_of_rank(rows: NDArray[np.int64], *, rank: int, world_size: int) -> NDArray[np.int64]:
    """Return the rows that one of ``world_size`` processes works on.

    The shares of all processes, in the order of ranks, make the whole. If the number of rows is no
    multiple of ``world_size``, the first shares are one row longer: no row is repeated or left out.
    """
    return np.array_split(rows, world_size)[rank]


def training_requests(
    rows: Rows,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    first_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    windows: ShardWindows | None = None,
) -> Iterator[BatchRequest]:
    """Yield the batch of each step of an epoch, with shuffled rows.

    The last partial batch is dropped: ``len(rows) % batch_size`` samples sit out this epoch, and
    other samples sit out the next epoch.

    Args:
        rows: the rows of the training part.
        batch_size: number of samples of a step, over all processes.
        seed: seed of the run.
        epoch: number of the epoch, from 0.
        first_step: number of the first step to yield, from 0; earlier steps cost nothing.
        rank: rank of this process.
        world_size: number of processes.
        windows: the shards of the rows, if the clips of a few shards are shuffled at a time; None
            shuffles all clips.

    Raises:
        UserError: there are fewer rows than one batch takes.
    """
    steps = steps_per_epoch(len(rows), batch_size)
    if windows is None:
        order = epoch_order(seed=seed, epoch=epoch, count=len(rows))
    else:
        order = windows.order(seed=seed, epoch=epoch)
    # The rows of some steps are computed together, because a call costs as much as many samples.
    at_once = max(1, ROWS_AT_ONCE // batch_size)
    for start in range(first_step, steps, at_once):
        end = min(start + at_once, steps)
        found = rows[order(np.arange(start * batch_size, end * batch_size))]
        for batch in found.reshape(-1, batch_size):
            share = share_of_rank(batch, rank=rank, world_size=world_size)
            yield BatchRequest(share, epoch)


def evaluation_requests(rows: NDArray[np.int64], *, batch_size: int) -> Iterator[BatchRequest]:
    """Yield every row once, in order."""
    for start in range(0, len(rows), batch_size):
        yield BatchRequest(rows[start : start + batch_size], None)


def sample_draws(
    *, seed: int, epoch: int, rows: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Return ``count`` uniform draws in [0, 1) for each sample, ``[B, count]``.

    The draws depend on the seed, the epoch and the sample alone: neither order nor batch changes
    how a sample is augmented.
    """
    # The streams share a key and differ in the counter. The last word of the counter is the row, so
    # the streams of two rows never overlap.
    streams = (np.random.Philox(key=[seed, epoch], counter=[0, 0, 1, int(row)]) for row in rows)
    return np.stack([np.random.Generator(stream).random(count) for stream in streams])


def sample_noise(
    *, seed: int, epoch: int, rows: NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return standard normal noise for each sample, ``[B, *shape]``.

    The noise depends on the seed, the epoch and the sample alone, like :func:`sample_draws`.
    """
    streams = (np.random.Philox(key=[seed, epoch], counter=[0, 0, 2, int(row)]) for row in rows)
    return np.stack(
        [np.random.Generator(s).standard_normal(shape, dtype=np.float32) for s in streams]
    )


def modality_draws(*, seed: int, epoch: int, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return two uniform draws in [0, 1) for each sample, ``[B, 2]``, for modality dropout.

    The draws depend on the seed, the epoch and the sample alone, like :func:`sample_draws`.
    """
    streams = (np.random.Philox(key=[seed, epoch], counter=[0, 0, 3, int(row)]) for row in rows)
    return np.stack([np.random.Generator(stream).random(2) for stream in streams])


def step_seed(*, seed: int, epoch: int, step: int) -> int:
    """Return a seed for the numbers that are drawn in a step on the device.

    The position bias of SCA is random, as published, and OGM-GE adds noise to gradients.
    """
    return int(np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0])
