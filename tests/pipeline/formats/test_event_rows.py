from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.pipeline.formats.event_npz import event_npz, read_event_npz
from avsnn.pipeline.formats.event_rows import event_row, event_row_shape
from avsnn.pipeline.formats.prepare_settings import EventSettings
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.events import Events, Sensor
from tests.pipeline.formats.event_samples import (
    TIME_TYPES,
    drawn_events,
    make_events,
    read_aedat,
)

some_events = st.booleans().flatmap(lambda cochlea: drawn_events(cochlea=cochlea))
some_settings = st.builds(
    EventSettings,
    steps=st.integers(1, 20),
    bins=st.sampled_from(["time", "count"]),
    downsample=st.integers(1, 5),
    crop=st.none() | st.integers(4, 50),
)


def counts_of(events: Events, **settings: object) -> list[int]:
    """Return the number of events in each time bin."""
    frames = event_row(events, EventSettings(**settings)).frames
    return frames.sum(axis=(1, 2, 3), dtype=int).tolist()


def times_only(t: list[float], dtype: str = "u4") -> Events:
    zeros = [0] * len(t)
    return make_events(t, zeros, zeros, zeros, (1, 1, 1), dtype)


# Small examples in which every number is written out.


def test_a_camera_of_two_rows_and_three_columns() -> None:
    events = make_events(
        t=[10, 11, 14, 15, 19, 20],
        x=[0, 2, 1, 2, 2, 0],
        y=[0, 1, 0, 1, 1, 0],
        p=[1, 0, 1, 0, 0, 1],
        sensor=(2, 2, 3),
    )
    row = event_row(events, EventSettings(steps=2, crop=None))
    # First bin: 10 <= t < 15; second bin: 15 <= t <= 20.
    off_first, on_first = [[0, 0, 0], [0, 0, 1]], [[1, 1, 0], [0, 0, 0]]
    off_second, on_second = [[0, 0, 0], [0, 0, 2]], [[1, 0, 0], [0, 0, 0]]
    assert row.frames.tolist() == [[off_first, on_first], [off_second, on_second]]
    assert row.frames.dtype == np.uint8
    assert (row.outside, row.saturated) == (0, 0)


def test_a_cochlea_of_five_channels_is_two_rows_of_three() -> None:
    events = make_events(
        t=[0.5, 1.0, 2.5, 2.5], x=[0, 4, 3, 3], y=[0] * 4, p=[0] * 4, sensor=(1, 1, 5), dtype="f8"
    )
    # Neither the crop nor the downsampling touches a cochlea.
    row = event_row(events, EventSettings(steps=2, crop=4, downsample=2))
    assert row.frames.tolist() == [[[[1, 0, 0], [0, 1, 0]]], [[[0, 0, 0], [2, 0, 0]]]]
    assert (row.outside, row.saturated) == (0, 0)


def test_the_crop_is_a_square_around_the_events() -> None:
    # Eight events in columns 5 to 8 and rows 1 to 4, and noise at two corners of the sensor.
    x, y = [5, 8, 5, 8, 6, 7, 6, 7, 0, 11], [1, 1, 4, 4, 2, 2, 3, 3, 9, 9]
    events = make_events(list(range(10)), x, y, [0] * 10, (1, 10, 12))
    row = event_row(events, EventSettings(steps=1, crop=4))
    assert row.frames.tolist() == [[[[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]]]
    assert (row.outside, row.saturated) == (2, 0)


def test_the_square_stays_on_the_sensor() -> None:
    events = make_events([0, 1], [0, 1], [9, 9], [0, 0], (1, 10, 10))
    frames = event_row(events, EventSettings(steps=1, crop=4)).frames
    assert frames[0, 0].sum(axis=0).tolist() == [1, 1, 0, 0]
    assert frames[0, 0].sum(axis=1).tolist() == [0, 0, 0, 2]


def test_a_square_that_is_larger_than_the_digit_has_the_digit_in_its_middle() -> None:
    corners = [20, 22, 24]
    x, y = np.meshgrid(corners, corners)
    events = make_events(range(9), x.ravel(), y.ravel(), [0] * 9, (1, 48, 48))
    frame = event_row(events, EventSettings(steps=1, crop=15)).frames[0, 0]
    middle = [5, 7, 9]
    assert np.argwhere(frame).tolist() == [[row, column] for row in middle for column in middle]


def test_two_digits_far_apart_do_not_leave_the_square_empty_between_them() -> None:
    # The middle of the two best squares holds nothing.
    events = make_events(range(4), [1, 2, 27, 28], [1, 2, 27, 28], [0] * 4, (1, 30, 30))
    row = event_row(events, EventSettings(steps=1, crop=4))
    assert (row.frames.sum(), row.outside) == (2, 2)


def test_a_sensor_that_is_smaller_than_the_crop_is_padded_evenly() -> None:
    events = make_events([0, 0], [0, 3], [0, 1], [0, 0], (1, 2, 4))
    frame = event_row(events, EventSettings(steps=1, crop=7)).frames[0, 0]
    # Two rows before and three after the sensor; one column before, and two after.
    assert np.argwhere(frame).tolist() == [[2, 1], [3, 4]]


def test_rows_and_columns_left_over_by_the_downsampling_are_a_smaller_block() -> None:
    # Five columns become blocks of 2, 2 and 1; three rows become blocks of 2 and 1.
    x, y = np.meshgrid(range(5), range(3))
    events = make_events(range(15), x.ravel(), y.ravel(), [0] * 15, (1, 3, 5))
    row = event_row(events, EventSettings(steps=1, crop=None, downsample=2))
    assert row.frames.tolist() == [[[[4, 4, 2], [2, 2, 1]]]]
    assert (row.outside, row.saturated) == (0, 0)


def test_counts_above_255_are_cut_and_counted() -> None:
    events = make_events(
        [5] * 600, [1] * 300 + [2] * 255 + [0] * 45, [0] * 600, [0] * 600, (1, 1, 4)
    )
    row = event_row(events, EventSettings(steps=1))
    assert row.frames.tolist() == [[[[45, 255], [255, 0]]]]
    assert (row.outside, row.saturated) == (0, 45)


def test_time_bins_are_half_open_and_the_last_one_holds_the_last_time() -> None:
    assert counts_of(times_only([0, 1, 2, 3, 4, 5, 6, 7, 8]), steps=4) == [2, 2, 2, 3]
    assert counts_of(times_only([0, 5, 9, 10]), steps=3) == [1, 1, 2]
    assert counts_of(times_only([100, 101]), steps=4) == [1, 0, 0, 1]
    assert counts_of(times_only([7, 7, 7]), steps=4) == [3, 0, 0, 0]
    assert counts_of(times_only([7.5], "f4"), steps=4) == [1, 0, 0, 0]
    assert counts_of(times_only([]), steps=2) == [0, 0]


def test_bins_of_count_hold_equally_many_events() -> None:
    assert counts_of(times_only([0, 0, 0, 0, 0, 0, 900]), steps=3, bins="count") == [3, 2, 2]
    assert counts_of(times_only([4, 9], "i8"), steps=4, bins="count") == [1, 0, 1, 0]
    assert counts_of(times_only([], "f2"), steps=2, bins="count") == [0, 0]
    # Events of one time keep the order of the recording; the first event in time is the last here.
    events = make_events([5, 5, 5, 1], [0, 1, 2, 3], [0] * 4, [0] * 4, (1, 1, 4))
    frames = event_row(events, EventSettings(steps=2, bins="count")).frames
    assert frames.reshape(2, 4).tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]


@pytest.mark.parametrize(
    ("sensor", "settings", "shape"),
    [
        (Sensor(2, 128, 128), EventSettings(), (16, 2, 28, 28)),
        (Sensor(2, 128, 128), EventSettings(crop=None, downsample=3), (16, 2, 43, 43)),
        (Sensor(2, 34, 34), EventSettings(steps=4, crop=40), (4, 2, 40, 40)),
        (Sensor(1, 1, 64), EventSettings(steps=64), (64, 1, 8, 8)),
        (Sensor(1, 1, 700), EventSettings(), (16, 1, 25, 28)),
        (Sensor(1, 1, 1), EventSettings(), (16, 1, 1, 1)),
        (Sensor(1, 1, 2), EventSettings(), (16, 1, 1, 2)),
        (Sensor(1, 1, 13), EventSettings(), (16, 1, 3, 5)),
        (Sensor(1, 1, 127), EventSettings(), (16, 1, 11, 12)),
        (Sensor(1, 1, 6), EventSettings(), (16, 1, 2, 3)),
    ],
)
def test_shapes(sensor: Sensor, settings: EventSettings, shape: tuple[int, ...]) -> None:
    assert event_row_shape(sensor, settings) == shape


def test_event_frames_that_are_too_large_are_refused_before_memory_is_taken() -> None:
    settings = EventSettings(steps=1024, crop=4096)
    with pytest.raises(MediaError, match="1024 x 2 x 4096 x 4096 counts are too large"):
        event_row(EMPTY, settings)
    with pytest.raises(MediaError, match="too large"):
        event_row_shape(Sensor(1, 1, 2**24), EventSettings())


EMPTY = make_events([], [], [], [], (2, 128, 128))


def test_a_recording_without_events_gives_frames_of_zeros() -> None:
    for bins in ("time", "count"):
        row = event_row(EMPTY, EventSettings(bins=bins))
        assert (row.frames.shape, row.frames.sum()) == ((16, 2, 28, 28), 0)
        assert (row.outside, row.saturated) == (0, 0)


# Properties of any events.


@given(some_events, some_settings)
def test_every_event_is_counted_once(events: Events, settings: EventSettings) -> None:
    row = event_row(events, settings)
    assert row.frames.shape == event_row_shape(events.sensor, settings)
    assert row.frames.dtype == np.uint8
    assert row.frames.sum(dtype=int) + row.outside + row.saturated == len(events.t)
    assert row.saturated == 0 or row.frames.max() == 255
    if events.sensor.height == 1 or settings.crop is None:
        assert row.outside == 0


@given(some_events, some_settings, st.randoms(use_true_random=False))
def test_the_order_of_events_changes_nothing_for_bins_of_time(
    events: Events, settings: EventSettings, draw: np.random.Generator
) -> None:
    settings = settings.model_copy(update={"bins": "time"})
    order = list(range(len(events.t)))
    draw.shuffle(order)
    mixed = Events(*(array[order] for array in events[:4]), events.sensor)
    row, other = event_row(events, settings), event_row(mixed, settings)
    assert row.frames.tobytes() == other.frames.tobytes()
    assert row[1:] == other[1:]


@given(some_events)
def test_one_time_step_is_the_histogram_of_the_addresses(events: Events) -> None:
    polarities, height, width = events.sensor
    histogram = np.zeros((polarities, height, width), int)
    np.add.at(histogram, (events.p, events.y, events.x), 1)
    histogram = np.minimum(histogram, 255)
    for bins in ("time", "count"):
        frames = event_row(events, EventSettings(steps=1, crop=None, bins=bins)).frames
        if (polarities, height) == (1, 1):
            assert frames.ravel()[:width].tolist() == histogram.ravel().tolist()
            assert not frames.ravel()[width:].any()
        else:
            assert frames[0].tolist() == histogram.tolist()


@given(drawn_events(), st.integers(1, 300))
def test_bins_of_count_differ_by_one_event_at_most(events: Events, steps: int) -> None:
    zeros = np.arange(len(events.t), dtype="u2")
    spread = Events(events.t, zeros, 0 * zeros, 0 * zeros, Sensor(1, 1, 400))
    counts = counts_of(spread, steps=steps, bins="count")
    assert sum(counts) == len(events.t)
    assert max(counts) - min(counts) <= 1


@given(
    st.sampled_from([dtype for dtype in TIME_TYPES if dtype[0] in "ui"]).flatmap(
        lambda dtype: st.tuples(
            st.just(dtype),
            st.lists(st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)), min_size=1),
        )
    ),
    st.integers(1, 1024),
)
def test_bins_of_whole_times_are_exact(times: tuple[str, list[int]], steps: int) -> None:
    dtype, t = times
    span = max(t) - min(t)
    expected = [0] * steps
    for tick in t:
        expected[min((tick - min(t)) * steps // span, steps - 1) if span else 0] += 1
    assert counts_of(times_only(t, dtype), steps=steps) == expected


@given(
    st.sampled_from([16, 32, 64]).flatmap(
        lambda width: st.tuples(
            st.just(f"f{width // 8}"),
            st.lists(st.floats(width=width, allow_nan=False, allow_infinity=False), min_size=1),
        )
    ),
    st.integers(1, 1024),
)
def test_floating_point_times_never_leave_the_bins(
    times: tuple[str, list[float]], steps: int
) -> None:
    dtype, t = times
    if max(t) - min(t) == np.inf:
        with pytest.raises(MediaError, match="too far apart"):
            event_row(times_only(t, dtype), EventSettings(steps=steps))
        return
    order = np.argsort(t)
    events = make_events(t, np.argsort(order), [0] * len(t), [0] * len(t), (1, 1, len(t)), dtype)
    frames = event_row(events, EventSettings(steps=steps)).frames.reshape(steps, -1)
    bins = frames[:, : len(t)].argmax(axis=0)
    assert frames.sum() == len(t)
    assert (np.diff(bins) >= 0).all()
    if max(t) > min(t):
        assert bins[0] == 0
        assert bins[-1] == steps - 1
    # A bin is that of exact arithmetic, or its neighbour where a time is at the edge of a bin.
    span = Fraction(max(t)) - Fraction(min(t))
    for number, place in enumerate(order if span else []):
        exact = (Fraction(t[place]) - Fraction(min(t))) / span * steps
        assert abs(min(exact, Fraction(2 * steps - 1, 2)) - bins[number] - Fraction(1, 2)) < 0.51


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bins", ["time", "count"])
def test_times_that_are_no_finite_numbers_are_refused(value: float, bins: str) -> None:
    with pytest.raises(MediaError, match="finite"):
        event_row(times_only([0.0, value, 1.0], "f4"), EventSettings(bins=bins))


@given(drawn_events(), st.integers(4, 30), st.integers(1, 4))
def test_the_crop_holds_nearly_as_many_events_as_the_best_square(
    events: Events, side: int, downsample: int
) -> None:
    row = event_row(events, EventSettings(steps=1, crop=side, downsample=downsample))
    height = -(-events.sensor.height // downsample)
    width = -(-events.sensor.width // downsample)
    counts = np.zeros((height, width), int)
    np.add.at(counts, (events.y // downsample, events.x // downsample), 1)
    best = max(
        int(counts[top : top + side, left : left + side].sum())
        for top in range(max(1, height - side + 1))
        for left in range(max(1, width - side + 1))
    )
    held = len(events.t) - row.outside
    assert best * 0.98 <= held <= best


# Real recordings.


def test_the_published_frames_of_a_real_recording(shared_data: Path) -> None:
    events = read_aedat(shared_data / "mnistdvs" / "mnist_0_scale04_0001.aedat")
    assert len(events.t) == 15_744
    row = event_row(read_event_npz(event_npz(events)), EventSettings())
    assert row.frames.shape == (16, 2, 28, 28)
    assert (row.outside, row.saturated) == (1_207, 0)
    assert row.frames.sum() == 15_744 - 1_207
    # A plain loop over the events, for the square from column 53 and row 49.
    frames = np.zeros((16, 2, 28, 28), int)
    for t, x, y, p in zip(*(array.tolist() for array in events[:4]), strict=True):
        if 53 <= x < 81 and 49 <= y < 77:
            frames[min(t * 16 // 2_210_588, 15), p, y - 49, x - 53] += 1
    np.testing.assert_array_equal(row.frames, frames)


@pytest.mark.parametrize(
    ("name", "downsample"),
    [("mnist_0_scale04_0001.aedat", 1), ("mnist_0_scale08_0001_qt1.aedat", 2)],
)
def test_the_digit_of_a_real_recording_is_in_the_middle_of_the_square(
    shared_data: Path, name: str, downsample: int
) -> None:
    events = read_aedat(shared_data / "mnistdvs" / name)
    row = event_row(events, EventSettings(downsample=downsample))
    assert row.outside / len(events.t) < 0.08
    seen = row.frames.sum(axis=(0, 1), dtype=int)
    places = np.arange(28) + 0.5
    for axis in (0, 1):
        assert abs((seen.sum(axis=axis) * places).sum() / seen.sum() - 14) < 1


def test_a_recording_at_another_place_of_the_sensor_gives_the_same_frames(
    shared_data: Path,
) -> None:
    events = read_aedat(shared_data / "mnistdvs" / "mnist_0_scale04_0001.aedat")
    digit = (abs(events.x.astype(int) - 67) < 20) & (abs(events.y.astype(int) - 63) < 20)
    near = Events(*(array[digit] for array in events[:4]), events.sensor)
    moved = near._replace(x=near.x + np.uint8(30), y=near.y - np.uint8(25))
    same, other = (event_row(sample, EventSettings()).frames for sample in (near, moved))
    assert same.tobytes() == other.tobytes()
