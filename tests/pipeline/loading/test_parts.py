import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from avsnn.pipeline.loading.parts import BLOCK, PartRows


@given(st.integers(1, 4 * BLOCK), st.floats(0.05, 0.95), st.integers(0, 99))
def test_the_rows_of_a_part_are_found_by_their_positions(
    clips: int, share: float, seed: int
) -> None:
    drawn = np.random.default_rng(seed)
    is_in_part = drawn.random(clips) < share
    rows, known = PartRows(is_in_part), np.flatnonzero(is_in_part)
    assert len(rows) == len(known)
    positions = drawn.permutation(len(known))
    assert np.array_equal(rows[positions], known[positions])
