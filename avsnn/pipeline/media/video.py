"""Decodes videos with OpenCV and decord, and decides whether a video is whole.

Each decoder is the second opinion on the other: both return what is left of a damaged file without
an error, so only a comparison of counts and durations shows the damage.
"""

import math
from contextlib import suppress
from pathlib import Path

from avsnn.pipeline.media.decord_decoder import decode_with_decord, open_with_decord
from avsnn.pipeline.media.errors import MediaError, require_content
from avsnn.pipeline.media.flv import read_flv_tags
from avsnn.pipeline.media.frames import Frame, FrameRule, Transform, Video
from avsnn.pipeline.media.opencv_decoder import decode_with_opencv, promised_frames

DECODERS = ("opencv", "decord")

# decord seeks to the wanted frames of a flash video if at most one frame in this number is wanted:
# then seeking was measured faster than reading the video from the start. In other containers
# seeking was measured to give other frames than the wanted frames (benchmarks/README.md).
SEEK_RATIO = 30


def _unchanged(frame: Frame) -> Frame:
    """Return the frame itself; the default transform."""
    return frame


def decode_video(
    path: Path,
    rule: FrameRule,
    *,
    sound_seconds: float | None = None,
    transform: Transform = _unchanged,
    decoders: tuple[str, ...] = DECODERS,
) -> Video:
    """Decode the frames that the rule names, and refuse a video that is not whole.

    ``"1fps"`` is the published rule: with ``f`` the whole frames per second, frames 0, f, 2f, ...
    A number ``n`` takes the middles of ``n`` equal stretches of the video.

    OpenCV reads on from the start, without seeking, since its seeks are wrong on some FLV files;
    decord seeks to a few frames of a long flash video. All decoders return what is left of a cut
    file without an error, so the number of frames must be what the container promises, and the
    frames must last as long as the sound. Where this does not hold, or one decoder fails, the other
    decoder is asked. OpenCV decides in the end, because decord puts cached frames in the place of
    broken frames. The frames after the last wanted frame of a flash video are counted, not decoded.

    Args:
        path: the video.
        rule: which frames are wanted.
        sound_seconds: duration of the sound of the clip, in s; None where the clip has no sound.
        transform: called with each wanted frame ``[H, W, 3]`` RGB; the results are returned.
        decoders: which of ``DECODERS`` may be used.

    Raises:
        MediaError: there is no frame or a single frame, some frames are missing, or the video lasts
            much longer than the sound.
    """
    is_flash = require_content(path).startswith(b"FLV")
    tags = read_flv_tags(path) if is_flash else None
    tag_count = tags.frame_count if tags else None
    if tag_count and isinstance(rule, int) and SEEK_RATIO * rule <= tag_count:
        video = _seek_in_flash_video(path, rule, sound_seconds, transform, decoders, tag_count)
        if video is not None:
            return video
    video = _read_on(path, rule, transform, decoders, tag_count)
    flaw = _find_flaw(video, sound_seconds)
    if flaw and set(decoders) == set(DECODERS):
        flaw = _ask_decord(path, video, flaw, sound_seconds)
    if tags and not tags.is_whole and "is truncated" not in (flaw or ""):
        flaw = f"is truncated: it breaks off after {video.total} frames"
    if flaw:
        raise MediaError(flaw)
    return video


def _seek_in_flash_video(
    path: Path,
    rule: int,
    sound_seconds: float | None,
    transform: Transform,
    decoders: tuple[str, ...],
    tag_count: int,
) -> Video | None:
    """Return the wanted frames by seeking; None where decord is not allowed or sees a flaw."""
    if "decord" not in decoders:
        return None
    with suppress(MediaError):
        promised = promised_frames(path) if "opencv" in decoders else None
        video = decode_with_decord(path, rule, transform, promised, seek=True)
        if video.total == tag_count and not _find_flaw(video, sound_seconds):
            return video
    return None


def _read_on(
    path: Path,
    rule: FrameRule,
    transform: Transform,
    decoders: tuple[str, ...],
    tag_count: int | None,
) -> Video:
    """Read a video from the start: with OpenCV, or with decord where OpenCV finds no frame."""
    if "opencv" in decoders:
        video = decode_with_opencv(path, rule, transform, tag_count)
        if video.total:
            return video
    if "decord" not in decoders:
        raise MediaError("is not a video that OpenCV can decode")
    return decode_with_decord(path, rule, transform)


def _find_flaw(video: Video, sound_seconds: float | None) -> str | None:
    """Return what is wrong with the number of frames; None if nothing is wrong."""
    total, promised = video.total, video.promised
    if not total:
        return "holds no frame that can be decoded"
    if not 0 < video.fps < math.inf:
        return "gives no frame rate"
    if promised is not None and abs(promised - total) > _tolerated_frames(promised):
        kind = "is truncated" if total < promised else "is inconsistent"
        return f"{kind}: {total} of the {promised} frames its container promises"
    if total == 1:
        return "holds a single frame"
    if sound_seconds is None:
        return None
    seconds = total / video.fps
    if seconds > 1.5 * sound_seconds + 0.5:
        return f"lasts {seconds:.1f} s where its sound lasts {sound_seconds:.1f} s"
    # A container without a duration leaves the sound as the only witness, so the frames may be
    # shorter than the sound by half of the usual tolerance only.
    tolerance = max(0.15, 0.05 * sound_seconds) * (1 if promised is None else 2)
    if seconds < sound_seconds - tolerance:
        alone = " and its container gives no duration" if promised is None else ""
        return f"is truncated: {seconds:.1f} s of picture for {sound_seconds:.1f} s of sound{alone}"
    return None


def _ask_decord(path: Path, video: Video, flaw: str, sound_seconds: float | None) -> str | None:
    """Return the flaw in the light of decord's number of frames.

    None where OpenCV, decord and the sound agree, so that the header of the container is wrong.
    """
    try:
        decord_count = len(open_with_decord(path))
    except MediaError:
        return flaw
    without_header = video._replace(promised=None)
    if (
        decord_count == video.total
        and sound_seconds
        and not _find_flaw(without_header, sound_seconds)
    ):
        return None
    if decord_count > video.total + _tolerated_frames(decord_count):
        return f"is corrupt: {video.total} of its {decord_count} frames can be decoded"
    return flaw


def _tolerated_frames(count: int) -> float:
    """Return by how many frames two counts of the same video may differ.

    The header of an FLV file is a frame or two off, since its duration covers the last of the sound
    too.
    """
    return max(3, 0.05 * count)
