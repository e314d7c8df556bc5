"""A shuffle for shards that are far away: the clips of a few shards are shuffled at a time.

A shuffle of all clips reads every batch from as many shards as the batch has clips, so a training
needs all shards within reach all the time. Here the shards are shuffled instead, and taken a few at
a time (a window); the clips of a window are shuffled among each other. So every shard is needed in
one stretch of the epoch alone, and a cache on the disk need hold only the shards of two windows.
The price is that a batch has clips of the shards of its window only.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.loading.parts import Parts, Rows
from avsnn.pipeline.loading.permutation import Order, random_order
from avsnn.pipeline.runs.train_settings import TrainSettings

# The last word of the counter of the stream that orders shards, and the word before the last one of
# the streams that order the clips of a window. `order.py` uses the words 0, 1 and 2.
STREAM_OF_SHARDS, STREAM_OF_WINDOWS = 3, 4

# Number of batches whose shards are counted.
MEASURED_BATCHES = 32


class ShardWindows:
    """The shards that the positions of a training part lie in.

    Args:
        shards: number of the shard of each position, ``[N]``; the positions of a shard follow each
            other.
        window: number of shards whose clips are shuffled among each other.
    """

    def __init__(self, shards: NDArray[np.integer[Any]], window: int) -> None:
        starts = np.flatnonzero(np.diff(shards, prepend=-1))
        self._starts = np.append(starts, len(shards))
        self.window = window

    def shards_of_a_batch(self, *, seed: int, batch_size: int) -> float:
        """Return from how many shards a batch has clips, on average over some batches of an epoch.

        Args:
            seed: seed of the run.
            batch_size: number of clips of a batch, at most the number of positions.
        """
        order, steps = self.order(seed=seed, epoch=0), int(self._starts[-1]) // batch_size
        some = np.unique(np.linspace(0, steps - 1, MEASURED_BATCHES).astype(np.int64))
        counts = []
        for step in some.tolist():
            positions = order(np.arange(step * batch_size, (step + 1) * batch_size))
            shards = np.searchsorted(self._starts, positions, side="right")
            counts.append(len(np.unique(shards)))
        return float(np.mean(counts))

    @property
    def shards(self) -> int:
        """Number of the shards."""
        return len(self._starts) - 1

    def order(self, *, seed: int, epoch: int) -> Order:
        """Return the order of an epoch, in which every position comes once."""
        key = [seed, epoch]
        stream = np.random.Philox(key=key, counter=[0, 0, STREAM_OF_SHARDS, 0])
        shards = np.random.Generator(stream).permutation(self.shards)
        # Where each shard begins among the positions, and where it ends in the order.
        starts, ends = self._starts[shards], np.cumsum(np.diff(self._starts)[shards])
        first_shards = np.arange(0, self.shards, self.window)
        window_starts = np.append(0, ends)[first_shards]

        @lru_cache(maxsize=2)
        def order_within(window: int) -> Order:
            end = ends[min(first_shards[window] + self.window, self.shards) - 1]
            stream = np.random.Philox(key=key, counter=[0, 0, STREAM_OF_WINDOWS, window])
            return random_order(int(end - window_starts[window]), stream)

        def order(positions: NDArray[np.int64]) -> NDArray[np.int64]:
            windows = np.searchsorted(window_starts, positions, side="right") - 1
            mixed = np.empty_like(positions)
            for window in np.unique(windows).tolist():
                here, first = windows == window, window_starts[window]
                mixed[here] = first + order_within(window)(positions[here] - first)
            shard = np.searchsorted(ends, mixed, side="right")
            clips: NDArray[np.int64] = starts[shard] + mixed - np.append(0, ends)[shard]
            return clips

        return order


def in_windows(
    parts: Parts, rows: Rows, settings: TrainSettings, say: Callable[[str], None]
) -> tuple[Rows, ShardWindows | None]:
    """Return the rows of a training in the order of their shards, and the windows of the shards.

    The rows stay as they are, without windows, where all clips are shuffled.

    Args:
        parts: the parts of the clips of the source.
        rows: the rows of the training part.
        settings: the settings of the training.
        say: is told from how many shards a batch has clips.
    """
    if (window := settings.data.shuffle_window) is None:
        return rows, None
    numbers = rows[np.arange(len(rows))]
    shards = parts.shards()[numbers]
    if (np.diff(shards) < 0).any():
        # The parts of this split lie across the shards, which follow the default split.
        by_shard = np.argsort(shards, kind="stable")
        rows, shards = numbers[by_shard], shards[by_shard]
    windows = ShardWindows(shards, window)
    in_batch = windows.shards_of_a_batch(seed=settings.seed, batch_size=settings.batch_size)
    say(
        f"the clips of {min(window, windows.shards):,} of {windows.shards:,} shards are shuffled "
        f"at a time (data.shuffle_window): a batch of {settings.batch_size} has clips of "
        f"{in_batch:.1f} shards on average"
    )
    return rows, windows
