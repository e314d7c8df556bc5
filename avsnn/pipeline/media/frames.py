"""What all video decoders share: the rule that names the wanted frames, and the decoded video."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The pixels of a frame or an image, ``[H, W, 3]`` RGB.
Frame = NDArray[np.uint8]

# Which frames are wanted: "1fps", or a number of frames. See `video.decode_video`.
FrameRule = int | str

# What the caller makes of each wanted frame, for instance a JPEG.
Transform = Callable[[Frame], Any]


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


def frames_per_second_step(fps: float) -> int:
    """Return the distance of the frames of the rule ``"1fps"``: the whole frames per second."""
    return max(1, int(fps)) if math.isfinite(fps) else 1


def spread_evenly(count: int, wanted: int) -> list[int]:
    """Return the middles of ``wanted`` equal stretches of ``count`` frames.

    Frames repeat where ``count`` is smaller than ``wanted``.
    """
    return [int((i + 0.5) * count / wanted) for i in range(wanted)]
