"""Which clips lie together in a file: the answer follows from the keys and sizes of the clips.

Clips are ordered by the SHA-256 of their keys. A group of clips that is larger than allowed is
divided in two by the next bit of the SHA-256, again and again. So a clip that is added or removed
changes its own group and no other group, except where its group is divided or joined. After any
number of changes, the groups are the groups of a new data set with the same clips.

Hashes are arrays ``uint64 [N, 2]``: the first 128 bits of the SHA-256, the higher bits first.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

# A group has the number of its first hash among 2**DEPTH, so that the number has six digits.
DEPTH = 19


def hash_rank(key: str) -> str:
    """Return the SHA-256 of a key. Sorting by the SHA-256 mixes the keys.

    The order depends on the keys alone, so the order is the same in every run on every machine.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def key_hashes(keys: Iterable[str]) -> NDArray[np.uint64]:
    """Return the hashes of keys, ``uint64 [N, 2]``. No two keys of a data set share 128 bits."""
    digests = bytearray()
    for key in keys:
        digests += hashlib.sha256(key.encode()).digest()[:16]
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)


def hash_order(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the rows of the hashes in the order of `hash_rank`, ``int64 [N]``."""
    return np.lexsort((hashes[:, 1], hashes[:, 0]))


def group_by_hash(
    hashes: NDArray[np.uint64],
    capacity: int,
    sizes: NDArray[np.int64] | None = None,
    max_size: int | None = None,
) -> Iterator[tuple[int, slice]]:
    """Divide clips into groups of at most ``capacity`` clips and of at most ``max_size``.

    Groups that were divided hold between about 40 % of what is allowed and all of that. A single
    clip is a group, however large the clip is. A group that cannot be divided any more, after 19
    bits, may hold more than is allowed.

    Args:
        hashes: the hashes of the clips in order, ``[N, 2]``.
        capacity: number of clips in a group, at most.
        sizes: the size of each clip, such as its bytes, ``[N]``; None where sizes do not matter.
        max_size: sum of the sizes in a group, at most.

    Yields:
        the number of each group, and the slice of the rows that are the group. The numbers grow,
        but are not consecutive.
    """
    # `searchsorted` would copy a column of a larger array in every call.
    highest = np.ascontiguousarray(hashes[:, 0])
    before = None
    if sizes is not None and max_size is not None:
        before = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    # Groups that are still to be looked at, the first on top: number, bits, first and end row.
    waiting = [(0, 0, 0, len(highest))]
    while waiting:
        number, bits, first, end = waiting.pop()
        if first == end:
            continue
        too_large = before is not None and before[end] - before[first] > max_size
        if end - first == 1 or bits == DEPTH or not (end - first > capacity or too_large):
            yield number, slice(first, end)
            continue
        upper = number + (1 << (DEPTH - bits - 1))
        # The first row whose hash begins with the bits of `upper`.
        least = np.uint64(upper << (64 - DEPTH))
        middle = first + int(np.searchsorted(highest[first:end], least))
        waiting.append((upper, bits + 1, middle, end))
        waiting.append((number, bits + 1, first, middle))
