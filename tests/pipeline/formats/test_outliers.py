from statistics import median_low

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from avsnn.pipeline.formats.frame_rows import frame_shape
from avsnn.pipeline.formats.outliers import find_outliers
from avsnn.pipeline.formats.prepare_settings import FrameSettings
from tests.pipeline.formats.clips import clips_of

sizes = st.tuples(st.integers(1, 800), st.integers(1, 800))


def test_one_small_clip_among_large_ones_is_left_out_with_its_reason() -> None:
    outliers = find_outliers(clips_of([(96, 128)] * 5 + [(1, 1), (48, 60), (47, 200)]))
    assert set(outliers) == {5, 7}
    assert outliers[7].startswith("frames of 200 x 47 px are too small: the median")


def test_clips_of_128_px_and_more_stay_beside_much_larger_ones() -> None:
    assert not find_outliers(clips_of([(1080, 1920)] * 5 + [(128, 300)]))


def test_without_clips_there_is_no_outlier() -> None:
    assert find_outliers(clips_of([])) == {}


@given(st.lists(sizes, min_size=1, max_size=9))
def test_the_other_clips_keep_at_least_half_of_their_size(shapes: list[tuple[int, int]]) -> None:
    clips = clips_of(shapes)
    kept = np.delete(clips, list(find_outliers(clips)))
    assert len(kept)
    side = min(frame_shape(kept, FrameSettings())[1:])
    assert side >= min(median_low(min(shape) for shape in shapes) / 2, 128)
