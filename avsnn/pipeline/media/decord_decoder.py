"""Decodes videos with decord, which can seek to the wanted frames."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.frames import (
    Frame,
    FrameRule,
    Transform,
    Video,
    frames_per_second_step,
    spread_evenly,
)

# Words in the error of decord where decord cannot open a file, and what the words mean.
DECORD_REASONS = {
    "cannot find video stream": "holds no video stream of a known codec",
    "getting stream info": "holds no frame that can be decoded",
    "Cannot create buffer source": "holds no frame that can be decoded",
}


def decode_with_decord(
    path: Path,
    rule: FrameRule,
    transform: Transform,
    promised: int | None = None,
    *,
    seek: bool = False,
) -> Video:
    """Decode the wanted frames of a video.

    Args:
        path: the video.
        rule: which frames are wanted.
        transform: called with each wanted frame.
        promised: number of frames by the header of the container; None where the caller has not
            read the header.
        seek: seek to the wanted frames; otherwise read on from the start.

    Raises:
        MediaError: decord is not installed, cannot open the file, or cannot decode all frames.
    """
    reader = open_with_decord(path)
    total, fps = len(reader), float(reader.get_avg_fps())
    if isinstance(rule, int):
        wanted = spread_evenly(total, rule)
    else:
        wanted = list(range(0, total, frames_per_second_step(fps)))
    # The last frame is decoded too: a broken end of the video shows in the last frame.
    decoded = [*wanted, total - 1]
    try:
        frames = list(reader.get_batch(decoded).asnumpy()) if seek else _read_on(reader, decoded)
    except Exception as error:
        # The errors of decord have no other base class in common.
        raise MediaError("holds frames that cannot be decoded") from error
    # In the place of a broken frame, decord returns a copy of another frame.
    for (i, frame), (j, following) in pairwise(zip(decoded, frames, strict=True)):
        if i != j and np.array_equal(frame, following):
            raise MediaError("holds frames that cannot be decoded, or never moves")
    return Video([transform(frame) for frame in frames[:-1]], total, fps, promised)


def open_with_decord(path: Path) -> Any:
    """Return decord's reader of a video; ``len`` of the reader is the number of frames.

    Raises:
        MediaError: decord is not installed, or cannot open the file.
    """
    try:
        import decord
    except ImportError:
        # Without decord, only OpenCV has tried to open the file.
        raise MediaError("is not a video that OpenCV can decode") from None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        return decord.VideoReader(str(path), num_threads=1)
    except (RuntimeError, decord.DECORDError) as error:
        for words, reason in DECORD_REASONS.items():
            if words in str(error):
                raise MediaError(reason) from None
        raise MediaError("is not a video that can be decoded") from None


def _read_on(reader: Any, wanted: list[int]) -> list[Frame]:
    """Read a video from the start to the last wanted frame, and return the wanted frames."""
    frames: dict[int, Frame] = {}
    for i in range(wanted[-1] + 1):
        frame = reader.next()
        if i in wanted:
            frames[i] = frame.asnumpy()
    return [frames[i] for i in wanted]
