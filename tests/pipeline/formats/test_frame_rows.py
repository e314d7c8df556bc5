from hypothesis import given, settings
from hypothesis import strategies as st

from avsnn.pipeline.formats.frame_rows import frame_shape
from avsnn.pipeline.formats.prepare_settings import FrameSettings
from avsnn.pipeline.formats.shards import Sample

sizes = st.tuples(st.integers(16, 400), st.integers(16, 400))


@settings(deadline=None)
@given(st.lists(sizes, min_size=1, max_size=4), st.integers(16, 300))
def test_frames_of_any_sizes_get_one_common_shape(
    shapes: list[tuple[int, int]], shorter_side: int
) -> None:
    samples = [
        Sample.model_construct(height=height, width=width, frames=1, members={"0.png": (0, 0)})
        for height, width in shapes
    ]
    shape = frame_shape(samples, FrameSettings(shorter_side=shorter_side))
    assert min(shape[1:]) == min(shorter_side, *(min(size) for size in shapes))
    if len(set(shapes)) == 1:
        height, width = shapes[0]
        assert abs(shape[2] / shape[1] - width / height) <= width / height / min(shape[1:])
    else:
        assert shape[1] == shape[2]
