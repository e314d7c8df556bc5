"""The members of a shard, decoded from one file of a clip: images, or the events of a recording.

The functions import the decoders when they are called, so that a run which finds nothing to do need
not wait for the import. Whatever calls the functions runs in the sandbox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsnn.datasets_manifest.clips import split_recording
from avsnn.pipeline.formats.shards import frame_member_name
from avsnn.pipeline.media.errors import require_content

if TYPE_CHECKING:
    from pathlib import Path

    from avsnn.datasets_manifest.recordings import EventFormat
    from avsnn.pipeline.formats.prepare_settings import ExtractSettings
    from avsnn.pipeline.media.events import Events
    from avsnn.pipeline.media.frames import Frame
    from avsnn.pipeline.media.readers import LoadedReader

# A file of one clip that is larger than this number of bytes, unpacked, is a mistake or a trap.
MAX_UNPACKED_BYTES = 2**32


def file_of(raw: Path, recording: str, room: Path | None) -> Path:
    """Return the file of a recording; a file inside a zip is unpacked into ``room`` first.

    Decoders of video read files of the disk only. A file that is in ``room`` already stays.

    Args:
        raw: the folder of the files as published.
        recording: path of the recording below ``raw``; see `MediaFile.recording`.
        room: folder for the unpacked files of this clip, which the caller removes; None where no
            file lies in a zip.

    Raises:
        MediaError: the zip is damaged, or has no such file.
        OSError: the zip cannot be read, or the disk fails.
    """
    from avsnn.pipeline.media.zip_members import copy_member

    archive, member = split_recording(recording)
    # A folder may be called like an archive.
    if room is None or not member or not (raw / archive).is_file():
        return raw / recording
    unpacked = room / recording
    if not unpacked.exists():
        copy_member(raw / archive, member, unpacked, MAX_UNPACKED_BYTES)
    return unpacked


def read_sound_member(path: Path, reader: LoadedReader | None) -> tuple[bytes, float, int]:
    """Return the sound of a file as FLAC: bytes, duration in s, rate in Hz.

    Args:
        path: the file.
        reader: the reader of the user for files of this suffix; None or a reader that reads no
            sound leaves the file to the decoders of avsnn.

    Raises:
        MediaError: the sound cannot be decoded, or is no sound that anybody could hear.
    """
    from avsnn.pipeline.media import audio

    if reader is None or reader.reader.sound is None:
        return audio.transcode_to_flac(path)
    from avsnn.pipeline.media.readers import read_sound

    sound = read_sound(path, reader)
    audio.require_sound(sound)
    return audio.encode_flac(sound)


def read_image_members(
    path: Path, settings: ExtractSettings | None = None, reader: LoadedReader | None = None
) -> tuple[dict[str, bytes], tuple[int, ...]]:
    """Return an image as its file holds the image, by the name of the member, and its shape.

    Args:
        path: the image.
        settings: the quality of the JPEG file that an image of a reader becomes.
        reader: as for `read_sound_member`.

    Raises:
        MediaError: the file is no JPEG or PNG image, or is damaged.
    """
    from avsnn.pipeline.media.image import decode_whole_image, encode_jpeg, image_suffix

    if settings is not None and reader is not None and reader.reader.frames is not None:
        from avsnn.pipeline.media.readers import read_image

        frame = read_image(path, reader)
        return {frame_member_name(0, "jpg"): encode_jpeg(frame, settings.jpeg_quality)}, frame.shape
    require_content(path)
    data = path.read_bytes()
    frame = decode_whole_image(data)
    return {frame_member_name(0, image_suffix(data)): data}, frame.shape


def read_video_members(
    path: Path,
    settings: ExtractSettings,
    sound_seconds: float | None,
    reader: LoadedReader | None = None,
) -> tuple[dict[str, bytes], tuple[int, ...]]:
    """Return the wanted frames of a video as JPEG files, by member in their order, and their shape.

    Args:
        path: the video.
        settings: which frames are wanted, and the quality of the JPEG files.
        sound_seconds: duration of the sound of the clip, in s; None where the clip has no sound.
        reader: as for `read_sound_member`.

    Raises:
        MediaError: the video cannot be decoded, or is not whole.
    """
    from avsnn.pipeline.media.image import encode_jpeg

    shapes = []

    def encode(frame: Frame) -> bytes:
        shapes.append(frame.shape)
        return encode_jpeg(frame, settings.jpeg_quality)

    rule = settings.frames
    if reader is None or reader.reader.frames is None:
        from avsnn.pipeline.media.video import decode_video

        frames = decode_video(path, rule, sound_seconds=sound_seconds, transform=encode).frames
    else:
        from avsnn.pipeline.media.readers import read_frames

        frames = read_frames(path, reader, rule, sound_seconds=sound_seconds, transform=encode)
    images = {frame_member_name(i, "jpg"): data for i, data in enumerate(frames)}
    return images, shapes[0]


def read_event_member(file: Path, member: str, form: EventFormat) -> tuple[Events, bytes]:
    """Return the events of a recording, and the events as an .npz file.

    Raises:
        MediaError: the recording is damaged, or is not there.
    """
    from avsnn.pipeline.formats.event_npz import event_npz
    from avsnn.pipeline.media.event_files import read_recording

    events = read_recording(file, member, form)
    return events, event_npz(events)
