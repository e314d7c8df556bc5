"""WebDataset shards as they lie on disk: a tar file of samples, and an index beside the tar.

The members of a sample ``key`` are ``key.0.jpg key.1.jpg … key.flac key.json``. A sample of event
sensors has ``key.visual.npz key.audio.npz key.json``. Plain ``webdataset`` reads the tar; the index
(``formats/shard_index.py``) gives the place, the size and the checksum of every member, so that
avsnn can read any member directly and notices any changed byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import google_crc32c
from upath import UPath

from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.engine.stores import read_ranges
from avsnn.pipeline.formats.damaged import damaged_error, unreadable_error
from avsnn.pipeline.media.events import Sensor

# Names of members without the key of the sample.
AUDIO_MEMBER = "flac"
METADATA_MEMBER = "json"
VISUAL_EVENTS_MEMBER = "visual.npz"
AUDIO_EVENTS_MEMBER = "audio.npz"


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
        offset: where the bytes of the file begin in the tar.
        size: number of bytes of the file.
        crc32c: the CRC-32C of these bytes.
    """

    offset: int
    size: int
    crc32c: int


class EventSensors(NamedTuple):
    """The sensors of a clip that is two recordings of events.

    Attributes:
        visual: polarities, height and width of the event camera.
        audio: the same of the cochlea: 1, 1, and the number of channels.
        visual_events: number of events of the event camera.
        audio_events: number of events of the cochlea.
    """

    visual: Sensor
    audio: Sensor
    visual_events: int
    audio_events: int


@dataclass(frozen=True)
class Sample:
    """A clip in a shard.

    Attributes:
        key: key of the clip.
        label: class of the clip, as an index.
        splits: the part of the clip in every split.
        frames: number of frames; 0 where the clip is events.
        height: height of every frame in px, or of the event camera.
        width: width of every frame in px, or of the event camera.
        audio_seconds: duration of the sound in s, or time from the first to the last event.
        audio_rate: sample rate of the sound in Hz; 0 where the clip is events.
        events: the sensors of a clip that is events; None for pictures and sound.
        members: each member of the tar, by the member's name.
    """

    key: str
    label: int
    splits: dict[str, str]
    frames: int
    height: int
    width: int
    audio_seconds: float
    audio_rate: int
    events: EventSensors | None = None
    members: dict[str, Member] = field(default_factory=dict)

    def frame_member(self, frame: int) -> str:
        """Return the name of the member that holds a frame, counted from 0."""
        return next(name for name in self.members if name.startswith(f"{frame}."))


def frame_member_name(frame: int, suffix: str) -> str:
    """Return the name of the member for a frame, counted from 0, with ``jpg`` or ``png``."""
    return f"{frame}.{suffix}"


def read_members(wanted: Sequence[tuple[Folder, Member]]) -> list[bytes]:
    """Return the bytes of members of shards that lie in one place; from a store, in one call.

    Args:
        wanted: the members, each with its shard. Members of one shard that follow each other are
            read from one open file.

    Raises:
        UserError: the bytes of a member are not the bytes that were written.
    """
    if wanted and isinstance(first := wanted[0][0], UPath):
        try:
            found = read_ranges(
                first,
                [str(shard.path) for shard, _ in wanted if isinstance(shard, UPath)],
                [member.offset for _, member in wanted],
                [member.offset + member.size for _, member in wanted],
            )
        except FileNotFoundError as error:
            gone = next((shard for shard, _ in wanted if not shard.exists()), first)
            raise unreadable_error(gone, error) from None
    else:
        found = []
        for shard, members in groupby(wanted, key=itemgetter(0)):
            with shard.open("rb") as file:
                for _, member in members:
                    file.seek(member.offset)
                    found.append(file.read(member.size))
    for (shard, member), data in zip(wanted, found, strict=True):
        require_written_bytes(shard, member, data)
    return found


def read_member(shard: Folder, member: Member) -> bytes:
    """Return the bytes of one member of a shard.

    Raises:
        UserError: the bytes are not the bytes that were written.
    """
    return read_members([(shard, member)])[0]


def require_written_bytes(shard: Folder, member: Member, data: bytes) -> None:
    """Check that bytes that were read are a member of a shard.

    Raises:
        UserError: the bytes are not the bytes that were written.
    """
    if len(data) != member.size:
        raise damaged_error(shard, "it is cut")
    if google_crc32c.value(data) != member.crc32c:
        raise damaged_error(shard, "it holds other bytes than were written")
