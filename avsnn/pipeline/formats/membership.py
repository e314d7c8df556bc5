"""Which clips lie together in a file: the answer follows from the keys of the clips alone.

Clips are ordered by the SHA-256 of their keys. A group of clips that is larger than allowed is
divided in two by the next bit of the SHA-256, again and again. So a clip that is added or removed
changes its own group and no other group, except where its group is divided or joined. After any
number of changes, the groups are the groups of a new data set with the same clips.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator

# A group has the number of its first hash among 2**DEPTH, so that the number has six digits.
DEPTH = 19


def hash_rank(key: str) -> str:
    """Return the SHA-256 of a key. Sorting by the SHA-256 mixes the keys.

    The order depends on the keys alone, so the order is the same in every run on every machine.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def group_by_hash(keys: Iterable[str], capacity: int) -> dict[int, list[str]]:
    """Divide keys into groups of at most ``capacity`` keys.

    Groups that were divided hold between about 40 % of ``capacity`` and all of it. A group that
    cannot be divided any more, after 19 bits, may hold more than ``capacity``.

    Returns:
        the keys of each group in the order of their SHA-256, by the number of the group. The
        numbers grow, but are not consecutive.
    """
    ranked = sorted((hash_rank(key), key) for key in keys)
    return {number: [key for _, key in group] for number, group in _divide(ranked, capacity, 0, 0)}


def _divide(
    ranked: list[tuple[str, str]], capacity: int, number: int, bits: int
) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Yield the groups whose SHA-256 begins with the first ``bits`` bits of ``number``."""
    if len(ranked) <= capacity or bits == DEPTH:
        if ranked:
            yield number, ranked
        return
    upper = number + (1 << (DEPTH - bits - 1))
    # The first hash whose first 19 bits are `upper`; five hexadecimal digits are 20 bits.
    middle = bisect_left(ranked, (f"{2 * upper:05x}", ""))
    yield from _divide(ranked[:middle], capacity, number, bits + 1)
    yield from _divide(ranked[middle:], capacity, upper, bits + 1)
