"""The packets of a video: counts frames and reads their times without decoding."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from avsnn.pipeline.media.containers import open_container
from avsnn.pipeline.media.errors import MediaError, require_plausible_size
from avsnn.pipeline.media.frames import Timing

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Codec in which each packet is one frame, and a key frame needs nothing from before: Sorenson H.263
# (FLV1). The decoder may jump to a key frame.
CODEC_TO_JUMP_IN = "flv"

# Containers for broadcasting, whose frame rate is constant. A gap in the times means lost frames.
CONSTANT_RATE_FORMATS = ("mpeg", "mpegts", "mpegvideo")


class Packets(NamedTuple):
    """What the packets and the header of a video tell.

    Attributes:
        timing: the frames by the packets; packets that an edit list hides do not count.
        keys: numbers of the packets that hold key frames.
        starts_with_key: whether the first packet holds a key frame; an edit list may hide the
            packet.
        header_count: number of frames by the header; None where the header gives none.
        seconds: duration in s by the header; None where the header gives none.
        has_edit_lists: whether the container is MP4, which may hide frames.
        may_jump: whether the decoder may jump to a key frame.
    """

    timing: Timing
    keys: list[int]
    starts_with_key: bool
    header_count: int | None
    seconds: float | None
    has_edit_lists: bool
    may_jump: bool

    def promised(self, timing: Timing) -> int | None:
        """Return the number of frames by the header.

        A number of frames counts more than a duration. An edit list may hide frames that the number
        of an MP4 file still counts; then the duration, which follows the edit list, counts too.

        Args:
            timing: number of the frames that were decoded, and frames per second.
        """
        by_duration = round(self.seconds * timing.fps) if self.seconds else None
        if self.header_count and not (self.has_edit_lists and by_duration):
            return self.header_count
        numbers = [number for number in (self.header_count, by_duration) if number]
        return min(numbers, key=lambda number: abs(number - timing.total), default=None)


def read_packets(path: Path) -> Packets:
    """Read all packets of the video stream.

    Raises:
        MediaError: the file is no video, or its frames are larger than 100 megapixels.
    """
    import av

    try:
        with open_container(path) as container:
            return _read_stream(container, video_stream(container))
    except av.EOFError:
        raise MediaError("holds no frame that can be decoded") from None
    except av.FFmpegError:
        raise MediaError("is not a video that can be decoded") from None


def video_stream(container: "InputContainer") -> "VideoStream":
    """Return the first video stream that is no cover picture, ready to be decoded on one core.

    Raises:
        MediaError: there is no such stream.
    """
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            # avsnn runs one worker per core, so more threads would only compete for the core.
            stream.codec_context.thread_count = 1
            if stream.codec_context.name == "mjpeg":
                # Otherwise a damaged picture would be half right, without an error. Decoders of
                # other codecs mark such a picture.
                stream.codec_context.options = {"err_detect": "explode"}
            return stream
    raise MediaError("holds no video stream of a known codec")


def _read_stream(container: "InputContainer", stream: "VideoStream") -> Packets:
    require_plausible_size(stream.codec_context.width, stream.codec_context.height)
    ticks: list[int | None] = []
    keys: list[int] = []
    hidden, starts_with_key = 0, False
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if not hidden and not ticks:
            starts_with_key = packet.is_keyframe
        if packet.is_discard:
            hidden += 1
            continue
        if packet.is_keyframe:
            keys.append(len(ticks))
        ticks.append(packet.pts)
    rate = stream.average_rate or stream.guessed_rate
    duration = container.duration
    seconds = duration / 1e6 if duration else None
    times = seconds_after_first(ticks, stream)
    if container.format.name in CONSTANT_RATE_FORMATS:
        times = None
        if seconds and rate:
            # These containers have no header that gives a duration. FFmpeg computes the duration
            # from the times of the last packets, and may miss the last frames.
            seconds = max(seconds, float(len(ticks) / rate))
    return Packets(
        timing=Timing(len(ticks), times, float(rate or 0)),
        keys=keys,
        starts_with_key=starts_with_key,
        header_count=stream.frames - hidden if stream.frames else None,
        seconds=seconds,
        has_edit_lists="mov" in container.format.name,
        may_jump=stream.codec_context.name == CODEC_TO_JUMP_IN and keys[:1] == [0],
    )


def seconds_after_first(ticks: list[int | None], stream: "VideoStream") -> list[float] | None:
    """Return times in s after the first time, in rising order; None where a time is unknown.

    Args:
        ticks: times of frames in the unit of the stream.
        stream: the stream that tells the unit.
    """
    known = sorted(tick for tick in ticks if tick is not None)
    if len(known) < len(ticks) or not known or stream.time_base is None:
        return None
    return [float((tick - known[0]) * stream.time_base) for tick in known]
