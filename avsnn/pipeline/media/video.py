"""Frames of videos by OpenCV and decord, each the other's second opinion; and single images."""

import math
import os
import sys
from collections.abc import Callable
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

from avsnn.pipeline.media.errors import MediaError, require_content
from avsnn.pipeline.media.flv import read_flv_tags

# One core per worker: more threads would only fight over it.
cv2.setNumThreads(1)

FrameRule = int | str
Frame = NDArray[np.uint8]
DECODERS = ("opencv", "decord")

# Where no more than one frame in so many of a flash video is wanted, decord's way straight to them
# was measured faster than reading it all. In other containers it was measured to give other frames
# than those asked for (benchmarks/README.md).
SPARSE = 30

# What decord says where it cannot open a file, and what that means.
DECORD_REASONS = {
    "cannot find video stream": "holds no video stream of a known codec",
    "getting stream info": "holds no frame that can be decoded",
    "Cannot create buffer source": "holds no frame that can be decoded",
}


def _as_it_is(frame: Frame) -> Frame:
    return frame


class Video(NamedTuple):
    """Some frames of a video, and what was counted on the way.

    ``frames`` holds what ``keep`` made of them, ``promised`` the container's word on ``total``,
    None where it gives no duration.
    """

    frames: list[Any]
    total: int
    fps: float
    promised: int | None


def decode_video(
    path: Path,
    rule: FrameRule,
    *,
    sound_seconds: float | None = None,
    keep: Callable[[Frame], Any] = _as_it_is,
    decoders: tuple[str, ...] = DECODERS,
) -> Video:
    """Decodes the frames that the rule names, of a video that is whole.

    ``"1fps"`` is the published rule: with ``f`` the whole frames per second, frames 0, f, 2f, ...
    A number ``n`` takes the middles of ``n`` equal stretches of the video.

    OpenCV reads on from the start, without seeking, since its seeks are wrong on some FLV files;
    decord goes straight to a few frames of a long flash video. All decoders return what is left of
    a cut file without a word, so the count must be what the container promises and last as long as
    the sound. Where it is not, or the one decoder fails, the other is asked. OpenCV has the last
    word: decord puts cached frames in the place of broken ones. What follows the last wanted frame
    of a flash video is counted, not decoded.

    Args:
        path: the file.
        rule: which frames.
        sound_seconds: duration of the sound that goes with it, in s; None where there is none.
        keep: called with each frame ``[H, W, 3]`` RGB as it comes; its results are returned.
        decoders: which of ``DECODERS`` may be used.

    Raises:
        MediaError: there is no frame or only one, some are missing, or the video lasts much longer
            than its sound.
    """
    is_flash = require_content(path).startswith(b"FLV")
    tags = read_flv_tags(path) if is_flash else None
    pictures = tags.pictures if tags else None
    if pictures and isinstance(rule, int) and SPARSE * rule <= pictures and "decord" in decoders:
        with suppress(MediaError):
            promised = _promised_frames(path) if "opencv" in decoders else None
            video = _by_decord(path, rule, keep, promised, seek=True)
            if video.total == pictures and not _flaw(video, sound_seconds):
                return video
    read = None
    if "opencv" in decoders:
        read = _by_opencv(path, rule, keep, pictures)
    if read is None or not read.total:
        if "decord" not in decoders:
            raise MediaError("is not a video that OpenCV can decode")
        read = _by_decord(path, rule, keep)
    flaw = _flaw(read, sound_seconds)
    if flaw and set(decoders) == set(DECODERS):
        flaw = _second_opinion(path, read, flaw, sound_seconds)
    if tags and not tags.is_whole and "is truncated" not in (flaw or ""):
        flaw = f"is truncated: it breaks off after {read.total} frames"
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
    bgr = np.ascontiguousarray(frame[..., ::-1])
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def resize(frame: Frame, height: int, width: int) -> Frame:
    """A frame ``[H, W, 3]`` at another size, bilinear with antialiasing, as published (PIL)."""
    import torch

    if frame.shape[:2] == (height, width):
        return frame
    # less than half of the time that area averaging takes in OpenCV
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        pixels, size=(height, width), mode="bilinear", antialias=True
    )
    return np.asarray(resized[0].permute(1, 2, 0).numpy(), np.uint8)


def _promised_frames(path: Path) -> int | None:
    capture = _open_opencv(path)
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


def _by_opencv(
    path: Path, rule: FrameRule, keep: Callable[[Frame], Any], count: int | None = None
) -> Video:
    """Reads on from the start, no further than to the last wanted frame if told the count."""
    is_told = count is not None
    if count is None and isinstance(rule, int):
        count = _count(path)
    capture = _open_opencv(path)
    try:
        fps, promised = float(capture.get(cv2.CAP_PROP_FPS)), _header_count(capture)
        spread = _spread(count, rule) if count and isinstance(rule, int) else None
        wanted = spread or range(0, sys.maxsize if count is None else count, _step(fps))
        last = None if count is None else max(wanted, default=-1)
        frames: dict[int, Any] = {}
        seen = 0
        while (last is None or seen <= last) and capture.grab():
            if seen in wanted:
                frames[seen] = keep(np.asarray(capture.retrieve()[1], np.uint8)[..., ::-1])
            seen += 1
    finally:
        capture.release()
    if is_told and last is not None and seen <= last:
        # Not all that is there can be decoded.
        return _by_opencv(path, rule, keep)
    total = seen if count is None else count
    return Video([frames[i] for i in spread or frames], total, fps, promised)


def _open_opencv(path: Path) -> cv2.VideoCapture:
    # Left alone, it sets up a thread per core, which a single clip does not keep busy.
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])


def _count(path: Path) -> int:
    """Frames that can be decoded; a header's count cannot be trusted."""
    capture = _open_opencv(path)
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count


def _step(fps: float) -> int:
    return max(1, int(fps)) if math.isfinite(fps) else 1


def _by_decord(
    path: Path,
    rule: FrameRule,
    keep: Callable[[Frame], Any],
    promised: int | None = None,
    *,
    seek: bool = False,
) -> Video:
    reader = _open_decord(path)
    count, fps = len(reader), float(reader.get_avg_fps())
    seconds = range(0, count, _step(fps))
    chosen = _spread(count, rule) if isinstance(rule, int) else list(seconds)
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
    return Video([keep(frame) for frame in frames[:-1]], count, fps, promised)


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
