"""Decodes videos with OpenCV, from the start and without seeking."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from avsnn.pipeline.media.frames import (
    FrameRule,
    Transform,
    Video,
    frames_per_second_step,
    spread_evenly,
)
from avsnn.pipeline.media.opencv_settings import cv2


def decode_with_opencv(
    path: Path, rule: FrameRule, transform: Transform, total: int | None = None
) -> Video:
    """Decode the wanted frames of a video; a video that OpenCV cannot open has 0 frames.

    Args:
        path: the video.
        rule: which frames are wanted.
        transform: called with each wanted frame.
        total: number of frames in the video, where the caller knows the number: then OpenCV reads
            no further than to the last wanted frame.
    """
    caller_knows_total = total is not None
    if total is None and isinstance(rule, int):
        total = _count_frames(path)
    capture = _open(path)
    try:
        fps, promised = float(capture.get(cv2.CAP_PROP_FPS)), _header_frame_count(capture)
        spread = spread_evenly(total, rule) if total and isinstance(rule, int) else None
        wanted = spread or range(
            0, sys.maxsize if total is None else total, frames_per_second_step(fps)
        )
        last = None if total is None else max(wanted, default=-1)
        frames: dict[int, Any] = {}
        read = 0
        while (last is None or read <= last) and capture.grab():
            if read in wanted:
                frames[read] = transform(np.asarray(capture.retrieve()[1], np.uint8)[..., ::-1])
            read += 1
    finally:
        capture.release()
    if caller_knows_total and last is not None and read <= last:
        # Some frames of the video cannot be decoded: count the frames that can.
        return decode_with_opencv(path, rule, transform)
    return Video(
        [frames[i] for i in spread or frames], read if total is None else total, fps, promised
    )


def promised_frames(path: Path) -> int | None:
    """Return how many frames the container promises.

    None where the container gives no duration, or OpenCV cannot read the container.
    """
    capture = _open(path)
    try:
        return _header_frame_count(capture)
    finally:
        capture.release()


def _header_frame_count(capture: cv2.VideoCapture) -> int | None:
    """Return the number of frames by the header of the container; None where there is none."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < math.inf else None


def _count_frames(path: Path) -> int:
    """Return how many frames can be decoded; the number in a header cannot be trusted."""
    capture = _open(path)
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count


def _open(path: Path) -> cv2.VideoCapture:
    # By default OpenCV starts a thread per core, and a single clip does not keep the threads busy.
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
