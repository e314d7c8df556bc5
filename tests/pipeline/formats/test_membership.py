"""Which clips lie together in a shard, and how the answer changes when clips come and go."""

from hypothesis import given
from hypothesis import strategies as st

from avsnn.pipeline.formats.membership import group_by_hash, hash_rank

KEYS = st.sets(st.text("abc01_-", min_size=1, max_size=8), max_size=60)
CAPACITY = st.integers(1, 9)


@given(KEYS, CAPACITY)
def test_every_clip_is_in_one_group_and_no_group_is_too_large(
    keys: set[str], capacity: int
) -> None:
    groups = group_by_hash(keys, capacity)
    members = [key for group in groups.values() for key in group]
    assert sorted(members) == sorted(keys)
    assert members == sorted(keys, key=hash_rank)
    assert list(groups) == sorted(groups)
    assert all(0 < len(group) <= capacity for group in groups.values())
    assert all(0 <= number < 10**6 for number in groups)


@given(KEYS, KEYS, CAPACITY)
def test_a_group_that_no_new_clip_joins_stays_or_is_a_piece_of_one_that_was_divided(
    before: set[str], added: set[str], capacity: int
) -> None:
    old, new = group_by_hash(before, capacity), group_by_hash(before | added, capacity)
    for group in new.values():
        if (added - before).isdisjoint(group):
            assert any(set(group) <= set(earlier) for earlier in old.values())
