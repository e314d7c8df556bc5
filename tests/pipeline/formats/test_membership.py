"""Which clips lie together in a shard, and how the answer changes when clips come and go."""

from collections.abc import Mapping

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from avsnn.pipeline.formats.membership import group_by_hash, hash_order, hash_rank, key_hashes

# Each key with the size of its clip.
CLIPS = st.dictionaries(st.text("abc01_-", min_size=1, max_size=8), st.integers(0, 50), max_size=60)
CAPACITY = st.integers(1, 9)
MAX_SIZE = st.integers(1, 200)


def group_keys(
    clips: Mapping[str, int], capacity: int, max_size: int | None = None
) -> dict[int, list[str]]:
    """Return the keys of every group, by the number of the group."""
    keys = sorted(clips)
    hashes = key_hashes(keys)
    order = hash_order(hashes)
    sizes = np.array([clips[keys[row]] for row in order], np.int64)
    groups = group_by_hash(hashes[order], capacity, sizes, max_size)
    return {number: [keys[row] for row in order[rows]] for number, rows in groups}


@given(CLIPS, CAPACITY, st.none() | MAX_SIZE)
def test_every_clip_is_in_one_group_and_no_group_is_too_large(
    clips: dict[str, int], capacity: int, max_size: int | None
) -> None:
    groups = group_keys(clips, capacity, max_size)
    members = [key for group in groups.values() for key in group]
    assert members == sorted(clips, key=hash_rank)
    assert list(groups) == sorted(groups)
    for group in groups.values():
        assert 0 < len(group) <= capacity
        assert max_size is None or len(group) == 1 or sum(clips[key] for key in group) <= max_size
    assert all(0 <= number < 10**6 for number in groups)


@given(CLIPS, CLIPS, CAPACITY, st.none() | MAX_SIZE)
def test_a_group_that_no_new_clip_joins_stays_or_is_a_piece_of_one_that_was_divided(
    before: dict[str, int], added: dict[str, int], capacity: int, max_size: int | None
) -> None:
    old = group_keys(before, capacity, max_size)
    new = group_keys(added | before, capacity, max_size)
    for group in new.values():
        if (set(added) - set(before)).isdisjoint(group):
            assert any(set(group) <= set(earlier) for earlier in old.values())


def test_groups_of_earlier_versions_keep_their_numbers() -> None:
    """The number of a group is a part of the names of its files."""
    clips = dict.fromkeys([f"clip-{number}" for number in range(40)], 1)
    found = [(number, len(group)) for number, group in group_keys(clips, 9).items()]
    assert found == [(0, 8), (65536, 7), (131072, 6), (262144, 8), (393216, 6), (458752, 5)]
