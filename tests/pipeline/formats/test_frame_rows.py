import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from avsnn.pipeline.formats.frame_rows import frame_row, frame_shape
from avsnn.pipeline.formats.prepare_settings import FrameSettings
from tests.pipeline.formats.clips import clips_of

sizes = st.tuples(st.integers(16, 400), st.integers(16, 400))


@settings(deadline=None)
@given(st.lists(sizes, min_size=1, max_size=4), st.integers(16, 300))
def test_frames_of_any_sizes_get_one_common_shape(
    shapes: list[tuple[int, int]], shorter_side: int
) -> None:
    shape = frame_shape(clips_of(shapes), FrameSettings(shorter_side=shorter_side))
    assert min(shape[1:]) == min(shorter_side, *(min(size) for size in shapes))
    if len(set(shapes)) == 1:
        height, width = shapes[0]
        assert abs(shape[2] / shape[1] - width / height) <= width / height / min(shape[1:])
    else:
        assert shape[1] == shape[2]


def test_an_image_of_other_proportions_is_cut_around_its_centre_and_not_stretched() -> None:
    """Frames of one size need not be square, and a clip from elsewhere has another size."""
    pixels = np.zeros((60, 60, 3), np.uint8)
    # A square of 30 px in the middle stays a square.
    pixels[15:45, 15:45] = 255
    image = cv2.imencode(".png", pixels)[1].tobytes()
    row = frame_row(image, (3, 20, 40), FrameSettings())
    white = row[0] > 127
    assert (white.any(1).sum(), white.any(0).sum()) == (20, 20)
    high = frame_row(image, (3, 40, 20), FrameSettings())[0] > 127
    assert (high.any(1).sum(), high.any(0).sum()) == (20, 20)
    square = frame_row(image, (3, 20, 20), FrameSettings())[0] > 127
    assert (square.any(1).sum(), square.any(0).sum()) == (10, 10)
