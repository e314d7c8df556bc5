"""Orders of samples: pure functions of a key, for any number of samples.

An order is a function from positions to samples. A small set gets an order from numpy, which keeps
a number of 8 bytes for each sample. A set of more than `LARGEST_IN_MEMORY` samples gets an order by
arithmetic, which keeps nothing: a sample is computed from its position alone.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# numpy makes an order of this number of samples in 20 ms, in 8 MB. Every run of a smaller set
# repeats the curves of earlier versions, because the order is the same as before.
LARGEST_IN_MEMORY = 2**20

# Four rounds suffice in theory if the rounds are random functions (Luby and Rackoff, 1988). Eight
# rounds leave room for a round that is a fast hash.
ROUNDS = 8

# Takes the positions ``[B]`` and returns the samples at these positions ``[B]``, from 0.
Order = Callable[[NDArray[np.int64]], NDArray[np.int64]]


def random_order(count: int, stream: np.random.Philox) -> Order:
    """Return an order in which each of ``count`` samples comes once.

    Args:
        count: number of samples.
        stream: the random numbers that decide the order.
    """
    if count <= LARGEST_IN_MEMORY:
        order: NDArray[np.int64] = np.random.Generator(stream).permutation(count)
        return order.__getitem__
    return order_by_arithmetic(count, stream)


def order_by_arithmetic(count: int, stream: np.random.Philox) -> Order:
    """Return an order that keeps no number for a sample; see `random_order`.

    A Feistel network is a permutation of all numbers of some bits, whatever its keys are: each
    round changes one half of the bits by a hash of the other half. A result that is no sample goes
    through the network again, until the result is a sample (cycle walking), so the whole is a
    permutation of the samples. The numbers are fewer than twice the samples, so a position takes
    fewer than two passes on average.
    """
    bits = (count - 1).bit_length()
    high_bits, low_bits = bits // 2, np.uint64(bits - bits // 2)
    high_mask, low_mask = np.uint64(2**high_bits - 1), np.uint64(2 ** int(low_bits) - 1)
    keys = stream.random_raw(ROUNDS).reshape(-1, 2)

    def permute(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        high, low = numbers >> low_bits, numbers & low_mask
        for key_of_low, key_of_high in keys:
            high ^= _hash(low ^ key_of_low) & high_mask
            low ^= _hash(high ^ key_of_high) & low_mask
        return (high << low_bits) | low

    def order(positions: NDArray[np.int64]) -> NDArray[np.int64]:
        samples = permute(positions.astype(np.uint64))
        while len(outside := np.flatnonzero(samples >= count)):
            samples[outside] = permute(samples[outside])
        return samples.astype(np.int64)

    return order


def _hash(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash of each number: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
