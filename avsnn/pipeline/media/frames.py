"""The frames of a video that are wanted: what a rule is, and which frames a rule names."""

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.media.errors import MediaError

# The pixels of a frame or an image, ``[H, W, 3]`` RGB.
Frame = NDArray[np.uint8]

# Which frames are wanted: "1fps", or a number of frames. See `video.decode_video`.
FrameRule = int | str

# What the caller makes of each wanted frame, for instance a JPEG.
Transform = Callable[[Frame], Any]

# A video of a variable frame rate may last at most this long, in s. A false time in a header would
# otherwise ask for billions of frames.
MAX_SECONDS = 3600


class Video(NamedTuple):
    """The wanted frames of a video, and what the decoder counted on the way.

    Attributes:
        frames: the results of the transform, one for each wanted frame.
        total: number of frames in the video.
        fps: frames per second.
        promised: number of frames by the header of the container; None where the container gives no
            duration.
    """

    frames: list[Any]
    total: int
    fps: float
    promised: int | None


class Timing(NamedTuple):
    """When the frames of a video are shown.

    Attributes:
        total: number of frames.
        times: when each frame appears, in s after the first frame, in rising order; None where the
            container does not tell all times.
        header_fps: frames per second by the header of the container; 0 where there is none.
    """

    total: int
    times: list[float] | None
    header_fps: float

    @property
    def is_constant(self) -> bool:
        """Whether the frame rate is constant: every frame appears when the header's rate says.

        A frame may be late or early by one frame and by 1 % of its time, because containers round
        times, and because FFmpeg estimates the rate of some containers from the first frames.
        """
        fps = self.header_fps
        if self.times is None:
            return True
        if not 0 < fps < math.inf:
            return False
        return all(abs(time - i / fps) <= (1 + 0.01 * i) / fps for i, time in enumerate(self.times))

    @property
    def fps(self) -> float:
        """Frames per second: the rate of the header if the rate is constant, otherwise the mean."""
        if self.is_constant or not self.times or not self.times[-1]:
            return self.header_fps
        return (len(self.times) - 1) / self.times[-1]

    def wanted(self, rule: FrameRule) -> list[int]:
        """Return the numbers of the frames that the rule names.

        Raises:
            MediaError: the frame rate is variable, and the video lasts longer than an hour.
        """
        if isinstance(rule, int):
            return spread_evenly(self.total, rule)
        if self.is_constant or not self.times:
            return list(range(0, self.total, frames_per_second_step(self.header_fps)))
        if self.times[-1] > MAX_SECONDS:
            seconds = f"{self.times[-1]:,.0f} s"
            raise MediaError(f"has {self.total} frames of a variable rate in {seconds}")
        return [_nearest(self.times, second) for second in range(int(self.times[-1]) + 1)]


def frames_per_second_step(fps: float) -> int:
    """Return the distance of the frames of the rule ``"1fps"``: the whole frames per second."""
    return max(1, int(fps)) if math.isfinite(fps) else 1


def spread_evenly(count: int, wanted: int) -> list[int]:
    """Return the middles of ``wanted`` equal stretches of ``count`` frames.

    Frames repeat where ``count`` is smaller than ``wanted``.
    """
    return [int((i + 0.5) * count / wanted) for i in range(wanted)] if count else []


def _nearest(times: list[float], second: float) -> int:
    """Return the number of the time, of rising times, that is nearest to a second."""
    after = bisect_left(times, second)
    candidates = range(max(0, after - 1), min(after + 1, len(times)))
    return min(candidates, key=lambda i: abs(times[i] - second))
