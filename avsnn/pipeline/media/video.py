"""Frames of videos by OpenCV and decord, each the other's second opinion; and single images."""

import math
import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

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
DECODERS = ("opencv", "decord")

# Up to so many frames of a flash video, decord's way straight to them was measured faster than
# reading it all. In other containers it was measured to give other frames than those asked for
# (benchmarks/README.md).
FEW_FRAMES = 8

# What decord says where it cannot open a file, and what that means.
DECORD_REASONS = {
    "cannot find video stream": "holds no video stream of a known codec",
    "getting stream info": "holds no frame that can be decoded",
    "Cannot create buffer source": "holds no frame that can be decoded",
}


class Video(NamedTuple):
    """Some frames of a video, ``[H, W, 3]`` RGB each, and what was counted on the way.

    ``promised`` is the container's word on ``total``, None where it gives no duration.
    """

    frames: list[Frame]
    total: int
    fps: float
    promised: int | None


def decode_video(
    path: Path,
    rule: FrameRule,
    *,
    sound_seconds: float | None = None,
    decoders: tuple[str, ...] = DECODERS,
) -> Video:
    """Decodes the frames that the rule names, of a video that is whole.

    ``"1fps"`` is the published rule: with ``f`` the whole frames per second, frames 0, f, 2f, ...
    A number ``n`` takes the middles of ``n`` equal stretches of the video.

    OpenCV reads on from the start, without seeking, since its seeks are wrong on some FLV files;
    decord goes straight to a few frames of a flash video. All decoders return what is left of a cut
    file without a word, so the count must be what the container promises and last as long as the
    sound. Where it is not, or the one decoder fails, the other is asked. OpenCV has the last word
    on a count: decord counts packets, and puts cached frames in the place of broken ones.

    Args:
        path: the file.
        rule: which frames.
        sound_seconds: duration of the sound that goes with it, in s; None where there is none.
        decoders: which of ``DECODERS`` may be used.

    Raises:
        MediaError: there is no frame or only one, some are missing, or the video lasts much longer
            than its sound.
    """
    is_flash = refuse_stub(path).startswith(b"FLV")
    if set(decoders) == set(DECODERS) and is_flash and rule in range(1, FEW_FRAMES + 1):
        with suppress(MediaError):
            video = _by_decord(path, rule, _promised_frames(path), seek=True)
            if not _flaw(video, sound_seconds):
                return video
    read = _by_opencv(path, rule) if "opencv" in decoders else None
    if read is None or not read.total:
        if "decord" not in decoders:
            raise MediaError("is not a video that OpenCV can decode")
        read = _by_decord(path, rule)
    flaw = _flaw(read, sound_seconds)
    if flaw and set(decoders) == set(DECODERS):
        flaw = _second_opinion(path, read, flaw, sound_seconds)
    if flaw:
        raise MediaError(flaw)
    return read


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


def _promised_frames(path: Path) -> int | None:
    capture = cv2.VideoCapture(str(path))
    try:
        return _header_count(capture)
    finally:
        capture.release()


def _header_count(capture: cv2.VideoCapture) -> int | None:
    """What the container promises; None where it gives no duration, or cannot be read."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < math.inf else None


def _flaw(video: Video, sound_seconds: float | None) -> str | None:
    """What is wrong with the number of frames; None if nothing is."""
    total, promised = video.total, video.promised
    if not total:
        return "holds no frame that can be decoded"
    if not 0 < video.fps < math.inf:
        return "gives no frame rate"
    # FLV headers are a frame or two off, since their duration covers the last of the sound too.
    if promised is not None and abs(promised - total) > max(3, 0.05 * promised):
        kind = "is truncated" if total < promised else "is inconsistent"
        return f"{kind}: {total} of the {promised} frames its container promises"
    if total == 1:
        return "holds a single frame"
    if sound_seconds is None:
        return None
    seconds = total / video.fps
    if seconds > 1.5 * sound_seconds + 0.5:
        return f"lasts {seconds:.1f} s where its sound lasts {sound_seconds:.1f} s"
    # Where the container says nothing the sound is the only witness, and is taken at its word.
    slack = max(0.15, 0.05 * sound_seconds) * (1 if promised is None else 2)
    if seconds < sound_seconds - slack:
        alone = " and its container gives no duration" if promised is None else ""
        return f"is truncated: {seconds:.1f} s of picture for {sound_seconds:.1f} s of sound{alone}"
    return None


def _second_opinion(path: Path, video: Video, flaw: str, sound_seconds: float | None) -> str | None:
    """The flaw as decord's count shows it; None where decord and the sound disown the header."""
    try:
        packets = len(_open_decord(path))
    except MediaError:
        return flaw
    headerless = video._replace(promised=None)
    if packets == video.total and sound_seconds and not _flaw(headerless, sound_seconds):
        return None
    if packets > video.total + max(3, 0.05 * packets):
        return f"is corrupt: {video.total} of its {packets} frames can be decoded"
    return flaw


def _by_opencv(path: Path, rule: FrameRule) -> Video:
    capture = cv2.VideoCapture(str(path))
    try:
        fps, promised = float(capture.get(cv2.CAP_PROP_FPS)), _header_count(capture)
        if not isinstance(rule, int):
            step = max(1, int(fps)) if math.isfinite(fps) else 1
            frames, count = _grab(capture, None, step)
        else:
            # A header's count cannot be trusted: count first, then read the frames.
            _, count = _grab(capture, set(), 1)
            capture.release()
            capture.open(str(path))
            frames, count = _grab(capture, set(_spread(count, rule)), 1)
            frames = [frames[i] for i in _repeats(count, rule)] if frames else []
    finally:
        capture.release()
    return Video(frames, count, fps, promised)


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


def _by_decord(
    path: Path, rule: FrameRule, promised: int | None = None, *, seek: bool = False
) -> Video:
    reader = _open_decord(path)
    count, fps = len(reader), float(reader.get_avg_fps())
    step = max(1, int(fps))
    chosen = _spread(count, rule) if isinstance(rule, int) else list(range(0, count, step))
    # The last frame too: a broken end shows there.
    asked = [*chosen, count - 1]
    try:
        frames = list(reader.get_batch(asked).asnumpy()) if seek else _read_on(reader, asked)
    except Exception as error:
        # What it raises has no other class in common.
        raise MediaError("holds frames that cannot be decoded") from error
    for (i, frame), (j, following) in pairwise(zip(asked, frames, strict=True)):
        if i != j and np.array_equal(frame, following):
            raise MediaError("holds frames that cannot be decoded, or never moves")
    return Video(frames[:-1], count, fps, promised)


def _read_on(reader: Any, asked: list[int]) -> list[Frame]:
    kept: dict[int, Frame] = {}
    for i in range(asked[-1] + 1):
        frame = reader.next()
        if i in asked:
            kept[i] = frame.asnumpy()
    return [kept[i] for i in asked]


def _open_decord(path: Path) -> Any:
    try:
        import decord
    except ImportError:
        raise MediaError("is not a video that OpenCV can decode") from None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        return decord.VideoReader(str(path), num_threads=1)
    except (RuntimeError, decord.DECORDError) as error:
        for told, reason in DECORD_REASONS.items():
            if told in str(error):
                raise MediaError(reason) from None
        raise MediaError("is not a video that can be decoded") from None


def _spread(count: int, frames: int) -> list[int]:
    """Middles of ``frames`` equal stretches of ``count`` frames; repeats where there are fewer."""
    return [int((i + 0.5) * count / frames) for i in range(frames)]


def _repeats(count: int, frames: int) -> list[int]:
    spread = _spread(count, frames)
    distinct = sorted(set(spread))
    return [distinct.index(i) for i in spread]
