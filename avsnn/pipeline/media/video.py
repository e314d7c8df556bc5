"""Frames of videos and images, by OpenCV, with decord where OpenCV cannot open a file."""

import os
from pathlib import Path
from typing import NamedTuple

# Read when OpenCV and its ffmpeg start: reasons are recorded, not printed.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.media import MediaError, refuse_stub

# One core per worker: more threads would only fight over it.
cv2.setNumThreads(1)

FrameRule = int | str
Frame = NDArray[np.uint8]


class Video(NamedTuple):
    """Some frames of a video, ``[H, W, 3]`` RGB each, and what was counted on the way."""

    frames: list[Frame]
    total: int
    fps: float


def decode_video(path: Path, rule: FrameRule) -> Video:
    """Decodes the frames that the rule names.

    ``"1fps"`` is the published rule: with ``f`` the whole frames per second, frames 0, f, 2f, ...
    A number ``n`` takes the middles of ``n`` equal stretches of the video.

    OpenCV reads on without seeking, since its seeks and header counts are wrong on some FLV files,
    and grabbing all frames while retrieving a few was measured faster than decord's access to the
    same few. decord gets the files that OpenCV cannot open.

    Raises:
        MediaError: no frame can be decoded, or fewer than nine in ten of those its header promises.
    """
    refuse_stub(path)
    video = _by_opencv(path, rule) or _by_decord(path, rule)
    if video is None or not video.frames:
        raise MediaError("no decoder can read a frame of it")
    return video


def decode_image(data: bytes) -> Frame:
    """An image file's pixels, ``[H, W, 3]`` RGB.

    Raises:
        MediaError: it is no image, or its data end early.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if pixels is None:
        raise MediaError("is not an image that can be decoded")
    return np.asarray(pixels, np.uint8)


def image_suffix(data: bytes) -> str:
    """``jpg`` or ``png``, by the file's own first bytes.

    Raises:
        MediaError: it is neither.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    raise MediaError("is neither a JPEG nor a PNG image")


def encode_jpeg(frame: Frame, quality: int) -> bytes:
    """A frame ``[H, W, 3]`` RGB as JPEG."""
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def resize(frame: Frame, height: int, width: int) -> Frame:
    """A frame ``[H, W, 3]`` at another size, by area averaging, as suits shrinking."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _by_opencv(path: Path, rule: FrameRule) -> Video | None:
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            return None
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if not isinstance(rule, int):
            frames, count = _grab(capture, None, max(1, int(fps)))
        else:
            # A header's count cannot be trusted: count first, then read the frames.
            _, count = _grab(capture, set(), 1)
            capture.release()
            capture.open(str(path))
            frames, count = _grab(capture, set(_spread(count, rule)), 1)
            frames = [frames[i] for i in _repeats(count, rule)]
    finally:
        capture.release()
    if count and count < 0.9 * promised - 2:
        raise MediaError(f"is truncated: {count} frames of the {promised} its header promises")
    return Video(frames, count, fps) if frames else None


def _grab(capture: cv2.VideoCapture, wanted: set[int] | None, step: int) -> tuple[list[Frame], int]:
    frames: list[Frame] = []
    count = 0
    while capture.grab():
        if (count in wanted) if wanted is not None else count % step == 0:
            ok, bgr = capture.retrieve()
            if not ok:
                break
            frames.append(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8))
        count += 1
    return frames, count


def _by_decord(path: Path, rule: FrameRule) -> Video | None:
    try:
        import decord
    except ImportError:
        return None
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        count, fps = len(reader), float(reader.get_avg_fps())
        seconds = range(0, count, max(1, int(fps)))
        wanted = _spread(count, rule) if isinstance(rule, int) else seconds
        frames = list(reader.get_batch(list(wanted)).asnumpy())
    except (RuntimeError, decord.DECORDError) as error:
        raise MediaError(f"cannot be decoded: {str(error).splitlines()[0]}") from None
    return Video(frames, count, fps)


def _spread(count: int, frames: int) -> list[int]:
    """Middles of ``frames`` equal stretches of ``count`` frames; repeats where there are fewer."""
    return [int((i + 0.5) * count / frames) for i in range(frames)]


def _repeats(count: int, frames: int) -> list[int]:
    spread = _spread(count, frames)
    distinct = sorted(set(spread))
    return [distinct.index(i) for i in spread]
