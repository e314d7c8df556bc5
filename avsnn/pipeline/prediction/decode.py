"""Decodes the files of a clip to the members of a shard, as the stage `extract` decodes files.

The functions run in the sandbox. So the module imports neither torch nor anything that imports
torch, and every child process starts quickly.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from avsnn.pipeline.media.errors import MediaError, NoSoundError, failures_of, require_content
from avsnn.pipeline.media.image import JPEG_SIGNATURE, PNG_SIGNATURE
from avsnn.pipeline.prepare.clip_members import (
    read_event_member,
    read_image_members,
    read_video_members,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avsnn.datasets_manifest.recordings import EventFormat
    from avsnn.pipeline.formats.prepare_settings import ExtractSettings
    from avsnn.pipeline.prediction.find_clips import File

NO_FILE = "is no picture, sound or video that can be decoded"
NO_PICTURE, NO_SOUND = "there is no picture", "there is no sound"


class Members(NamedTuple):
    """The members of a shard that a network reads of one clip.

    Attributes:
        visual: an image file, or the events of a camera; None where the clip has no picture.
        audio: a sound file, or the events of a cochlea; None where the clip has no sound.
        reason: why a modality is missing; empty where nothing is missing.
        steps: the image file of each time step, for a network that sees another frame in every
            step; empty for other networks.
    """

    visual: bytes | None
    audio: bytes | None
    reason: str
    steps: tuple[bytes, ...] = ()


def decode_media(
    visual: "File | None",
    sound: "File | None",
    settings: "ExtractSettings",
    positions: "Sequence[float]" = (),
) -> Members:
    """Decode a picture or a video, and a sound.

    A sound that is silence is no sound: `prepare` refuses such a clip, and a network never learned
    from silence.

    Args:
        visual: the picture or the video.
        sound: the sound; where there is none, the sound of the video is taken.
        settings: which frames of a video are wanted.
        positions: position in [0, 1) along the wanted frames of the frame of each time step.

    Raises:
        MediaError: a file cannot be decoded, or the clip has neither picture nor sound.
        OSError: a file cannot be read.
    """
    # FFmpeg takes a relative path with a colon for an address.
    seen = visual and visual.path.absolute()
    heard = sound and sound.path.absolute()
    is_image, has_picture = False, seen is not None
    reasons = []
    if seen is not None:
        is_image = _is_image(seen)
        if not is_image and heard is None:
            has_picture, has_sound = _streams_of(seen)
            heard = seen if has_sound else None
    flac, seconds = None, None
    if heard is None:
        reasons.append(NO_SOUND)
    else:
        flac, seconds, why = _read_sound(heard)
        reasons += [why] if why else []
    images: list[bytes] = []
    if seen is None or not has_picture:
        reasons.append(NO_PICTURE)
    else:
        images = _read_pictures(seen, settings, seconds, is_image=is_image)
    if not images and flac is None:
        raise MediaError(" and ".join(reasons))
    # Evaluation reads the middle of the wanted frames, or one for each time step.
    middle = images[len(images) // 2] if images else None
    steps = tuple(images[int(place * len(images))] for place in positions) if images else ()
    return Members(middle, flac, " and ".join(reasons), steps)


def decode_events(
    visual: "File | None", sound: "File | None", form: "tuple[EventFormat, EventFormat]"
) -> Members:
    """Read a recording of an event camera, and a recording of a cochlea.

    Raises:
        MediaError: a recording is damaged, or a file holds several recordings and none is named.
        OSError: a file cannot be read.
    """
    seen = heard = None
    if visual is not None:
        with failures_of("the recording of the camera"):
            seen = _read_recording(visual, form[0])
    if sound is not None:
        with failures_of("the recording of the cochlea"):
            heard = _read_recording(sound, form[1])
    missing = [
        f"there is no recording of the {sensor}"
        for sensor, data in (("camera", seen), ("cochlea", heard))
        if data is None
    ]
    return Members(seen, heard, " and ".join(missing))


def _is_image(path: Path) -> bool:
    """Return whether a file is an image, whatever its name is."""
    with failures_of("the file"):
        start = require_content(path)
    return start.startswith((JPEG_SIGNATURE, PNG_SIGNATURE))


def _streams_of(path: Path) -> tuple[bool, bool]:
    """Return whether a container holds a picture, and whether it holds sound.

    Raises:
        MediaError: the file is no container that FFmpeg opens, or is cut.
    """
    import av

    from avsnn.pipeline.media.container_headers import require_whole
    from avsnn.pipeline.media.containers import open_container

    with failures_of("the file"):
        require_whole(path)
        try:
            with open_container(path) as container:
                pictures = [
                    stream
                    for stream in container.streams.video
                    # The picture on the cover of a record is no picture of a clip.
                    if not stream.disposition & av.stream.Disposition.attached_pic
                ]
                has_picture, has_sound = bool(pictures), bool(container.streams.audio)
        except av.FFmpegError:
            raise MediaError(NO_FILE) from None
        if not has_picture and not has_sound:
            raise MediaError("holds neither picture nor sound")
    return has_picture, has_sound


def _read_sound(path: Path) -> tuple[bytes | None, float | None, str]:
    """Return a sound as FLAC, its duration in s, and why there is no sound."""
    from avsnn.pipeline.media.audio import transcode_to_flac

    with failures_of("the sound"):
        try:
            flac, seconds, _ = transcode_to_flac(path)
        except NoSoundError as error:
            return None, None, f"the sound {error}"
    return flac, seconds, ""


def _read_pictures(
    path: Path, settings: "ExtractSettings", seconds: float | None, *, is_image: bool
) -> list[bytes]:
    """Return the wanted frames, at least one, as image files."""
    with failures_of("the picture"):
        if is_image:
            images, _ = read_image_members(path)
        else:
            images, _ = read_video_members(path, settings, seconds)
    return list(images.values())


def _read_recording(file: "File", form: "EventFormat") -> bytes:
    """Return the events of a recording; a file of one recording needs no name of the recording."""
    from avsnn.pipeline.media.event_files import list_recordings

    member = file.member
    if not member:
        names = list_recordings(file.path, form)
        if not names:
            raise MediaError("is not there: the file holds no recording")
        if len(names) > 1:
            example = f"{file.path.name}/{names[0]}"
            raise MediaError(f"is one of {len(names):,} in its file; name one, such as {example}")
        member = names[0]
    _, data = read_event_member(file.path, member, form)
    return data
