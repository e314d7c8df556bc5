"""Decodes the wanted frames of a video with PyAV."""

from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from avsnn.pipeline.media.containers import open_container
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.frames import Frame, Timing, Transform
from avsnn.pipeline.media.packets import Packets, seconds_after_first, video_stream

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter


class Decoded(NamedTuple):
    """What a decoder made of a video.

    Attributes:
        frames: the results of the transform, by the number of the frame.
        timing: the frames that were decoded.
        starts_with_key: whether the first decoded frame is a key frame.
        broke_off: whether the decoder stopped at a damaged frame.
        is_guessed: whether the decoder had to guess parts of a frame.
    """

    frames: dict[int, Any]
    timing: Timing
    starts_with_key: bool
    broke_off: bool
    is_guessed: bool


def decode_all(path: Path, wanted: list[int], transform: Transform, packets: Packets) -> Decoded:
    """Decode a video from the start to its end or to the first damaged frame.

    Args:
        path: the video.
        wanted: numbers of the wanted frames.
        transform: called with each wanted frame.
        packets: the packets of the video.

    Raises:
        MediaError: the video changes its size.
    """
    import av
    from av.video.reformatter import VideoReformatter

    numbers, frames, converter = set(wanted), {}, VideoReformatter()
    ticks: list[int | None] = []
    sizes: set[tuple[int, int]] = set()
    starts_with_key = broke_off = is_guessed = False
    with open_container(path) as container:
        stream = video_stream(container)
        try:
            for frame in container.decode(stream):
                if not ticks:
                    starts_with_key = frame.key_frame
                # A decoder computes a frame from frames before and behind, so a damaged frame that
                # is not wanted spoils wanted frames, too.
                is_guessed |= frame.is_corrupt
                if len(ticks) in numbers:
                    sizes.add((frame.width, frame.height))
                    frames[len(ticks)] = transform(_pixels(frame, converter))
                ticks.append(frame.pts)
        except av.FFmpegError:
            broke_off = True
        times = seconds_after_first(ticks, stream) if packets.timing.times else None
    _require_one_size(sizes)
    timing = Timing(len(ticks), times, packets.timing.header_fps)
    return Decoded(frames, timing, starts_with_key, broke_off, is_guessed)


def decode_from_key_frames(
    path: Path, wanted: list[int], transform: Transform, packets: Packets
) -> Decoded | None:
    """Decode each wanted frame from the key frame before it, and no frame else.

    Returns:
        None where a packet does not give the one frame that it should give, so that only
        `decode_all` can tell what the video holds.
    """
    import av
    from av.video.reformatter import VideoReformatter

    needed: set[int] = set()
    for number in set(wanted):
        key = packets.keys[bisect_right(packets.keys, number) - 1]
        needed.update(range(key, number + 1))
    numbers, last, frames = set(wanted), max(needed, default=-1), {}
    sizes: set[tuple[int, int]] = set()
    converter = VideoReformatter()
    with open_container(path) as container:
        stream = video_stream(container)
        for i, packet in enumerate(p for p in container.demux(stream) if p.size):
            if i > last:
                break
            if i not in needed:
                continue
            is_jump = i - 1 not in needed
            if is_jump:
                stream.codec_context.flush_buffers()
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                return None
            if len(decoded) != 1 or decoded[0].is_corrupt or (is_jump and not decoded[0].key_frame):
                return None
            if i in numbers:
                sizes.add((decoded[0].width, decoded[0].height))
                frames[i] = transform(_pixels(decoded[0], converter))
    _require_one_size(sizes)
    return Decoded(frames, packets.timing, True, broke_off=False, is_guessed=False)


def _require_one_size(sizes: set[tuple[int, int]]) -> None:
    """Refuse a video that changes its size, because the frames of a clip have one shape.

    Args:
        sizes: width and height of the wanted frames in px.

    Raises:
        MediaError: there are several sizes.
    """
    if len(sizes) > 1:
        words = ", ".join(f"{width} x {height} px" for width, height in sorted(sizes))
        raise MediaError(f"changes the size of its frames: {words}")


def _pixels(frame: "VideoFrame", converter: "VideoReformatter") -> Frame:
    """Return the pixels of a frame as a player shows the frame: turned and flipped.

    Args:
        frame: the frame.
        converter: converts colours; a video needs one converter, because its tables cost time.
    """
    # OpenCV interpolates colours in the same way, so the pixels are equal to the bit.
    # The array is a view of BGR, because OpenCV encodes such a view as JPEG without a copy.
    bgr = converter.reformat(frame, format="bgr24", interpolation="BICUBIC", threads=1)
    pixels = np.asarray(bgr.to_ndarray(), np.uint8)[..., ::-1]
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # A pixel at (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(cast("Any", matrix)), np.int32)[:5]
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
