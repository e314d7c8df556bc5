"""Reads the headers of media files: duration, size, rates, and whether a file can be read."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avsnn.pipeline.engine.children import usable_cores
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.media import sandbox
from avsnn.pipeline.media.container_headers import require_whole
from avsnn.pipeline.media.containers import open_container
from avsnn.pipeline.media.errors import (
    MediaError,
    failures_of,
    require_content,
    require_plausible_size,
)
from avsnn.pipeline.media.image import declared_size, image_suffix
from avsnn.pipeline.media.packets import video_stream
from avsnn.pipeline.media.sandbox import DecoderDiedError, Sandbox
from avsnn.pipeline.media.sound_files import UNKNOWN_COUNT, require_plausible_sound

# Number of files whose headers are read in one call of a child process.
FILES_PER_CALL = 50
# Fewer files than this are read in one child process, because each process takes a while to start.
FEW_FILES = 400
# Formats whose header tells no size of the file. To find a cut, avsnn would read the whole file.
WHOLE_FILES = (
    *(".mkv", ".mka", ".webm", ".ogg", ".oga", ".ogv", ".opus", ".mp3", ".aac"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob"),
)
# An image tells its size in its first bytes, after a thumbnail at most.
BYTES_OF_AN_IMAGE = 2**18


@dataclass(frozen=True)
class Facts:
    """What the header of a file tells; None where the header tells nothing.

    Attributes:
        fault: why the file cannot be used, as the end of a sentence; empty if it can be used.
        seconds: duration in s.
        fps: frames per second.
        size: width and height in px.
        rate: sample rate of the sound in Hz; None where there is no sound.
    """

    fault: str = ""
    seconds: float | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    rate: int | None = None


def probe_files(paths: Sequence[Path], kind: str, progress: Progress) -> list[Facts]:
    """Read the headers of files in child processes, which may hang or crash.

    Args:
        paths: the files.
        kind: ``video``, ``image`` or ``sound``.
        progress: receives the progress.
    """
    if not paths:
        return []
    groups = [paths[i : i + FILES_PER_CALL] for i in range(0, len(paths), FILES_PER_CALL)]
    found: list[Facts] = []
    progress.start("look", len(paths), f"{kind}s")
    try:
        if len(paths) < FEW_FILES:
            for group in groups:
                found += _probe_or_blame(group, kind)
                progress.advance(len(group))
            return found
        with Sandbox(min(usable_cores(), len(groups))) as children:
            pending = [children.start(probe_group, group, kind) for group in groups]
            for group, call in zip(groups, pending, strict=True):
                try:
                    found += call.result()
                except DecoderDiedError:
                    found += _probe_or_blame(group, kind)
                progress.advance(len(group))
    finally:
        progress.stop()
    return found


def _probe_or_blame(paths: Sequence[Path], kind: str) -> list[Facts]:
    """Read some files in one call; if the call hangs or crashes, read one file in each call."""
    try:
        return sandbox.call(probe_group, paths, kind)
    except DecoderDiedError as error:
        if len(paths) == 1:
            return [Facts(fault=str(error))]
    return [facts for path in paths for facts in _probe_or_blame([path], kind)]


def probe_group(paths: Sequence[Path], kind: str) -> list[Facts]:
    """Read the headers of some files, in the process of the caller."""
    return [_probe(path, kind) for path in paths]


def _probe(path: Path, kind: str) -> Facts:
    try:
        with failures_of(""):
            require_content(path)
            if kind != "image" and path.suffix.lower() not in WHOLE_FILES:
                require_whole(path)
            return {"video": _video, "image": _image, "sound": _sound}[kind](path)
    except MediaError as error:
        return Facts(fault=str(error).strip())
    except OSError as error:
        return Facts(fault=f"cannot be read: {error.strerror}")


def _video(path: Path) -> Facts:
    import av

    try:
        with open_container(path) as container:
            stream = video_stream(container)
            size = stream.codec_context.width, stream.codec_context.height
            require_plausible_size(*size)
            rate = stream.average_rate or stream.guessed_rate
            sounds = [one for one in container.streams.audio if one.codec_context is not None]
            return Facts(
                seconds=container.duration / 1e6 if container.duration else None,
                fps=float(rate) if rate else None,
                size=size,
                rate=sounds[0].codec_context.sample_rate if sounds else None,
            )
    except av.FFmpegError:
        raise MediaError("is not a video that can be decoded") from None


def _sound(path: Path) -> Facts:
    import av
    import soundfile

    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            if file.frames != UNKNOWN_COUNT:
                seconds = file.frames / file.samplerate
                require_plausible_sound(file.samplerate, seconds)
                return Facts(seconds=seconds, rate=file.samplerate)
    except soundfile.LibsndfileError:
        pass
    try:
        with open_container(path) as container:
            if not container.streams.audio or container.streams.audio[0].codec_context is None:
                raise MediaError("holds no sound of a known codec")
            seconds = container.duration / 1e6 if container.duration else None
            rate = container.streams.audio[0].codec_context.sample_rate
            require_plausible_sound(rate, seconds or 0)
            return Facts(seconds=seconds, rate=rate)
    except av.FFmpegError:
        raise MediaError("is not a sound that can be decoded") from None


def _image(path: Path) -> Facts:
    with path.open("rb") as file:
        head = file.read(BYTES_OF_AN_IMAGE)
    image_suffix(head)
    size = declared_size(head)
    require_plausible_size(*size)
    return Facts(size=size if all(size) else None)
