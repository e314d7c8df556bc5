"""Decodes videos with PyAV, and decides whether a video is whole.

FFmpeg returns what is left of a damaged file without an error, so only a comparison of counts and
durations shows the damage.
"""

import math
from pathlib import Path

from avsnn.pipeline.media.container_headers import require_whole
from avsnn.pipeline.media.errors import MediaError, require_content
from avsnn.pipeline.media.flv import FlvTags, read_flv_tags
from avsnn.pipeline.media.frames import Frame, FrameRule, Transform, Video
from avsnn.pipeline.media.packets import Packets, read_packets
from avsnn.pipeline.media.pyav_decoder import Decoded, decode_all, decode_from_key_frames


def _unchanged(frame: Frame) -> Frame:
    """Return the frame itself; the default transform."""
    return frame


def decode_video(
    path: Path,
    rule: FrameRule,
    *,
    sound_seconds: float | None = None,
    transform: Transform = _unchanged,
) -> Video:
    """Decode the frames that the rule names, and refuse a video that is not whole.

    ``"1fps"`` is the published rule: with ``f`` the whole frames per second, frames 0, f, 2f, ...
    If the frame rate is variable, ``"1fps"`` names the frames nearest to 0 s, 1 s, 2 s, ...
    A number ``n`` takes the middles of ``n`` equal stretches of the frames.

    The packets tell the number and the times of the frames. In a flash video (FLV1), the decoder
    jumps to the key frame before each wanted frame; any other video is decoded from the start,
    because only then every codec gives the wanted frames. The number of frames must be what the
    container promises, and the frames must last as long as the sound. A container that promises
    something else is ignored where the packets, the frames and the sound agree.

    Args:
        path: the video.
        rule: which frames are wanted.
        sound_seconds: duration of the sound of the clip, in s; None where the clip has no sound.
        transform: called with each wanted frame ``[H, W, 3]`` RGB; the results are returned.

    Raises:
        MediaError: there is no frame or a single frame, some frames are missing, or the video lasts
            much longer than the sound.
    """
    is_flash = require_content(path).startswith(b"FLV")
    tags = read_flv_tags(path) if is_flash else None
    if not is_flash:
        require_whole(path)
    packets = read_packets(path)
    wanted, decoded = _decode(path, rule, transform, packets)
    timing = decoded.timing
    frames = [decoded.frames[i] for i in wanted]
    video = Video(frames, timing.total, timing.fps, packets.promised(timing))
    flaw = _find_damage(packets, decoded, tags)
    if not flaw and (flaw := find_flaw(video, sound_seconds)):
        all_agree = packets.timing.total == video.total and sound_seconds is not None
        if all_agree and not find_flaw(video._replace(promised=None), sound_seconds):
            # Only the header of the container says something else.
            flaw = None
    if tags and not tags.is_whole and "is truncated" not in (flaw or ""):
        flaw = f"is truncated: it breaks off after {video.total} frames"
    if flaw or (flaw := _find_guess(packets, decoded)):
        raise MediaError(flaw)
    return video


def _decode(
    path: Path, rule: FrameRule, transform: Transform, packets: Packets
) -> tuple[list[int], Decoded]:
    """Return the numbers of the wanted frames, and what the decoder made of the video."""
    wanted = packets.timing.wanted(rule)
    if packets.may_jump:
        decoded = decode_from_key_frames(path, wanted, transform, packets)
        if decoded is not None:
            return wanted, decoded
    decoded = decode_all(path, wanted, transform, packets)
    if decoded.timing.total != packets.timing.total:
        # In some codecs a packet is no frame or half a frame: only the decoder knows the frames.
        wanted = decoded.timing.wanted(rule)
        if not set(wanted) <= set(decoded.frames):
            decoded = decode_all(path, wanted, transform, packets)
    return wanted, decoded


def _find_damage(packets: Packets, decoded: Decoded, tags: FlvTags | None) -> str | None:
    """Return how many frames stand before damaged bytes; None where no damage shows."""
    count, total = packets.timing.total, decoded.timing.total
    if total and decoded.broke_off and count > total:
        return f"is corrupt: {total} of its {count} frames can be decoded"
    if tags and tags.is_whole and count > tags.pictures:
        # FFmpeg skips damaged bytes, and goes on with the first tag behind the bytes.
        return f"is corrupt: {tags.pictures} of its {count} frames stand before damaged bytes"
    return None


def _find_guess(packets: Packets, decoded: Decoded) -> str | None:
    """Return why the decoder had to guess pixels; None where the decoder guessed nothing."""
    if not packets.starts_with_key and not decoded.starts_with_key:
        return "starts without a key frame, so its first frames cannot be decoded"
    return "holds frames that cannot be decoded" if decoded.is_guessed else None


def find_flaw(video: Video, sound_seconds: float | None) -> str | None:
    """Return what is wrong with the number of frames; None if nothing is wrong.

    Args:
        video: the video.
        sound_seconds: duration of the sound of the clip, in s; None where the clip has no sound.
    """
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


def _tolerated_frames(count: int) -> float:
    """Return by how many frames two counts of the same video may differ.

    The header of an FLV file is a frame or two off, since its duration covers the last of the sound
    too.
    """
    return max(3, 0.05 * count)
