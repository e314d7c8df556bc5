"""A row of the caches of event data: the events of a recording, counted in time bins."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from avsnn.pipeline.formats.event_npz import require_finite_times
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.events import Sensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from avsnn.pipeline.formats.prepare_settings import EventSettings
    from avsnn.pipeline.media.events import Events

# Event frames of one clip with more counts than this limit are a mistake in the settings. The
# largest frames of a camera of 128 x 128 px have a quarter of the limit.
MAX_COUNTS = 2**27

MAX_COUNT = np.iinfo(np.uint8).max


class EventFrames(NamedTuple):
    """The event frames of one recording.

    Every event is in ``frames``, in ``outside`` or in ``saturated``:
    ``E = frames.sum() + outside + saturated``.

    Attributes:
        frames: number of events in each time bin at each address ``[T, P, H, W]``; a number above
            255 is stored as 255.
        outside: number of events outside the crop.
        saturated: number of events that ``frames`` lacks because of the limit of 255.
    """

    frames: NDArray[np.uint8]
    outside: int
    saturated: int


def event_row(events: Events, settings: EventSettings) -> EventFrames:
    """Return the event frames of a recording: its events, counted in ``T`` time bins.

    An event camera gives ``[T, 2, H, W]``: OFF events, then ON events. The camera is downsampled
    first, then cropped to a square (:func:`_crop_start`). A cochlea gives ``[T, 1, H, W]``: channel
    ``c`` is at row ``c // W`` and column ``c % W``; ``downsample`` and ``crop`` do not apply.

    Args:
        events: the events; the times need not be sorted.
        settings: the settings of event frames. ``bins=time`` has T bins of the same length from the
            first to the last time (:func:`_bins_of_time`), ``bins=count`` has T bins of as equal
            numbers of events as possible (:func:`_bins_of_count`).

    Raises:
        MediaError: a time is no finite number, the times are too far apart, or the event frames
            would be too large.
    """
    shape = event_row_shape(events.sensor, settings)
    require_finite_times(events.t)
    T, P, H, W = shape
    bins = (_bins_of_time if settings.bins == "time" else _bins_of_count)(events.t, T)
    if _is_cochlea(events.sensor):
        places = bins * (H * W) + events.x.astype(np.intp)
    else:
        _, height, width = _downsampled(events.sensor, settings)
        rows = (events.y // settings.downsample).astype(np.intp)
        columns = (events.x // settings.downsample).astype(np.intp)
        if settings.crop is not None:
            top, left = _crop_start(rows, columns, (height, width), settings.crop)
            rows -= top
            columns -= left
        places = ((bins * P + events.p.astype(np.intp)) * H + rows) * W + columns
        if height > H or width > W:
            places = places[(rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)]
    counts = np.bincount(places, minlength=T * P * H * W)
    frames = np.minimum(counts, MAX_COUNT)
    return EventFrames(
        frames=frames.astype(np.uint8).reshape(shape),
        outside=len(events.t) - len(places),
        saturated=len(places) - int(frames.sum()),
    )


def event_row_shape(sensor: Sensor, settings: EventSettings) -> tuple[int, int, int, int]:
    """Return the shape ``[T, P, H, W]`` of the event frames of a sensor.

    A camera of 128 x 128 px with the published settings has ``[T, 2, 28, 28]``. A cochlea of 64
    channels has ``[T, 1, 8, 8]``, as published, and a cochlea of 700 channels ``[T, 1, 25, 28]``.

    Raises:
        MediaError: the event frames would be too large.
    """
    if _is_cochlea(sensor):
        H, W = _folded(sensor.width)
    elif settings.crop is not None:
        H = W = settings.crop
    else:
        _, H, W = _downsampled(sensor, settings)
    shape = (settings.steps, sensor.polarities, H, W)
    if np.prod(shape, dtype=float) > MAX_COUNTS:
        raise MediaError(
            f"event frames of {' x '.join(map(str, shape))} counts are too large, the limit is "
            f"{MAX_COUNTS:,} counts; choose fewer steps, a smaller crop or a larger downsample"
        )
    return shape


def _is_cochlea(sensor: Sensor) -> bool:
    return sensor.polarities == 1 and sensor.height == 1


def _folded(channels: int) -> tuple[int, int]:
    """Return height and width of the image that a cochlea's channels fill row by row.

    The image is as square as the divisors of the number of channels allow: 64 channels are 8 x 8,
    and 700 are 25 x 28. A prime number of channels has no divisors, so the last row of its image
    has places that stay 0: 13 channels are 3 x 5.
    """
    root = isqrt(channels)
    height = max(divisor for divisor in range(1, root + 1) if channels % divisor == 0)
    if height == 1:
        height = root
    return height, -(-channels // height)


def _downsampled(sensor: Sensor, settings: EventSettings) -> Sensor:
    """Return the sensor after the downsampling, in which ``downsample`` rows become one row.

    Rows and columns that are left over at the end become a last, smaller block. So no event is
    lost, and event frames without a crop show all that the camera sees.
    """
    step = settings.downsample
    return Sensor(sensor.polarities, -(-sensor.height // step), -(-sensor.width // step))


def _bins_of_time(t: NDArray[np.integer | np.floating], T: int) -> NDArray[np.intp]:
    """Return the time bin of each event ``[E]``, for ``T`` bins of the same length.

    The bin is ``min(floor((t - first) * T / (last - first)), T - 1)``, where ``first`` and ``last``
    are the smallest and the largest time. So bins are half open, and the last time belongs to the
    last bin. If all times are equal, the bin is 0. The arithmetic is exact for whole times. For
    floating-point times, the arithmetic is float64, and a larger time never gets a smaller bin.
    """
    bins: NDArray[np.intp]
    if len(t) == 0:
        return np.zeros(0, np.intp)
    if t.dtype.kind != "f":
        first, last = int(t.min()), int(t.max())
        # The difference of 64-bit times may be larger than int64 holds, and never than uint64 does.
        ticks = t.astype(np.uint64) - np.uint64(first % 2**64)
        # floor(tick * T / span) >= k is the same as tick >= ceil(k * span / T). No product of
        # times is computed in 64 bits, so nothing overflows.
        edges = [-(-k * (last - first) // T) for k in range(1, T if last > first else 1)]
        bins = np.searchsorted(np.array(edges, np.uint64), ticks, side="right")
        return bins
    times = t.astype(np.float64)
    offsets = times - times.min()
    span = offsets.max()
    if span > 0:
        # The division comes first: a quotient is at most 1, so its product with T cannot overflow.
        offsets = offsets / span * T
    bins = np.minimum(offsets.astype(np.intp), T - 1)
    return bins


def _bins_of_count(t: NDArray[np.integer | np.floating], T: int) -> NDArray[np.intp]:
    """Return the time bin of each event ``[E]``, for ``T`` bins of as many events each.

    The event of rank ``r`` in the order of time, from 0 to ``E - 1``, is in the bin
    ``floor(r * T / E)``, so the numbers of events in two bins differ by at most one. Events of one
    time keep the order of the recording.
    """
    bins = np.empty(len(t), np.intp)
    bins[np.argsort(t, kind="stable")] = np.arange(len(t)) * T // max(len(t), 1)
    return bins


def _crop_start(
    rows: NDArray[np.intp], columns: NDArray[np.intp], size: tuple[int, int], side: int
) -> tuple[int, int]:
    """Return top row and left column of the square of ``side`` px around the events.

    The square is the middle of all squares on the sensor that hold at least 98 % of the events that
    the best square holds. If the middle itself holds fewer, the nearest of these squares is taken.
    On a real MNIST-DVS recording, this square is also the square around the mean and around the
    median of the events. Other recordings may have more noise, a digit far from the middle, or a
    pixel that fires all the time. So 150 digits of MNIST were made into moving edges of about 30 px
    at random places, with 7.5 % noise. In 28 x 28 px, the square around the mean kept 96.4 % of the
    events of a digit, the square around the median 95.4 %, and this square 97.8 %. With one pixel
    that fires all the time, the figures were 85.5 %, 93.9 % and 97.8 %. The best square alone is no
    good choice: where a square is larger than the digit, noise decides which square is the best.

    A sensor with fewer rows or columns than ``side`` is padded evenly with zeros: then the start is
    negative, and the padding after the sensor is the larger half.
    """
    height, width = size
    side_y, side_x = min(side, height), min(side, width)
    counts = np.bincount(rows * width + columns, minlength=height * width).reshape(size)
    # sums[i, j] is the number of events in rows below i and columns below j.
    sums = np.zeros((height + 1, width + 1), np.int64)
    counts.cumsum(0).cumsum(1, out=sums[1:, 1:])
    held = sums[side_y:] - sums[:-side_y]
    held = held[:, side_x:] - held[:, :-side_x]
    tops, lefts = np.nonzero(held * 50 >= held.max() * 49)
    nearest = np.argmin((tops - tops.mean()) ** 2 + (lefts - lefts.mean()) ** 2)
    return (
        int(tops[nearest]) - (side - side_y) // 2,
        int(lefts[nearest]) - (side - side_x) // 2,
    )
