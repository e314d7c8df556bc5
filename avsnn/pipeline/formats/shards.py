"""WebDataset shards as they lie on disk: a tar file of samples, and a JSON index beside the tar.

The members of a sample ``key`` are ``key.0.jpg key.1.jpg … key.flac key.json``. A sample of event
sensors has ``key.visual.npz key.audio.npz key.json``. Plain ``webdataset`` reads the tar; the index
gives the place, the size and the checksum of every member, so that avsnn can read any member
directly and notices any changed byte.
"""

import hashlib
import tarfile
from pathlib import Path
from typing import NamedTuple

import google_crc32c
from pydantic import BaseModel, ValidationError
from upath import UPath

from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.formats.damaged import damaged_error
from avsnn.pipeline.formats.membership import hash_rank
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


class EventSensors(BaseModel):
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


class Sample(BaseModel):
    """A clip in a shard.

    Attributes:
        key: key of the clip.
        label: class of the clip, as an index.
        splits: the part of the clip in every split.
        source: `IndexRow.source`, which tells from which files the clip was decoded.
        sha256: SHA-256 of the frames and the sound together; empty while the shard is written.
        frames: number of frames; 0 where the clip is events.
        height: height of every frame in px, or of the event camera.
        width: width of every frame in px, or of the event camera.
        audio_seconds: duration of the sound in s, or time from the first to the last event.
        audio_rate: sample rate of the sound in Hz; 0 where the clip is events.
        events: the sensors of a clip that is events; None for pictures and sound.
        members: each member of the tar, by the member's name; empty while the shard is written.
    """

    key: str
    label: int
    splits: dict[str, str]
    source: str
    sha256: str = ""
    frames: int
    height: int
    width: int
    audio_seconds: float
    audio_rate: int
    events: EventSensors | None = None
    members: dict[str, Member] = {}

    def frame_member(self, frame: int) -> str:
        """Return the name of the member that holds a frame, counted from 0."""
        return next(name for name in self.members if name.startswith(f"{frame}."))


class ShardIndex(BaseModel):
    """The JSON beside a shard: the samples of the shard in order."""

    shard: str
    samples: list[Sample]


def frame_member_name(frame: int, suffix: str) -> str:
    """Return the name of the member for a frame, counted from 0, with ``jpg`` or ``png``."""
    return f"{frame}.{suffix}"


def write_shard_index(tar: Path, samples: list[Sample]) -> None:
    """Find the members of every sample in a finished tar, and write the index beside the tar.

    Args:
        tar: the shard.
        samples: the samples of the shard in order, still without members and SHA-256.
    """
    by_key = {sample.key: sample for sample in samples}
    members: dict[str, dict[str, Member]] = {key: {} for key in by_key}
    contents = {key: hashlib.sha256() for key in by_key}
    with tarfile.open(tar) as archive, tar.open("rb") as file:
        for info in archive:
            # WebDataset ends a key at the first dot of a name; the manifest allows no dot in a key.
            key, _, name = info.name.partition(".")
            file.seek(info.offset_data)
            data = file.read(info.size)
            members[key][name] = Member(info.offset_data, info.size, google_crc32c.value(data))
            if name != METADATA_MEMBER:
                contents[key].update(f"{name} {info.size}\n".encode() + data)
    described = [
        sample.model_copy(
            update={"members": members[sample.key], "sha256": contents[sample.key].hexdigest()}
        )
        for sample in samples
    ]
    index = ShardIndex(shard=tar.name, samples=described)
    tar.with_suffix(".json").write_text(
        index.model_dump_json(indent=1, exclude_none=True), encoding="utf-8", newline="\n"
    )


def index_files(folder: Folder) -> list[Folder]:
    """Return the index files of all shards in a folder, sorted."""
    return sorted(folder.glob("*.json"), key=str)


def read_shards(folder: Folder) -> list[tuple[Folder, Sample]]:
    """Return every sample of every shard, each with its shard.

    The samples are ordered by the SHA-256 of their keys, whatever the shard is. So the order stays
    when a clip moves from one part of a split to another.

    Raises:
        UserError: the index of a shard is damaged.
    """
    found = [
        (path.with_suffix(".tar"), sample)
        for path in index_files(folder)
        for sample in read_shard_index(path)
    ]
    return sorted(found, key=lambda pair: hash_rank(pair[1].key))


def read_shard_index(path: Folder) -> list[Sample]:
    """Return the samples of one shard, from the index beside the shard.

    Raises:
        UserError: the index is damaged.
    """
    try:
        return ShardIndex.model_validate_json(path.read_bytes()).samples
    except ValidationError:
        raise damaged_error(path) from None


def read_member(shard: Folder, member: Member) -> bytes:
    """Return the bytes of one member of a shard.

    Raises:
        UserError: the bytes are not the bytes that were written.
    """
    if isinstance(shard, UPath):
        end = member.offset + member.size
        data: bytes = shard.fs.cat_file(shard.path, start=member.offset, end=end)
    else:
        with shard.open("rb") as file:
            file.seek(member.offset)
            data = file.read(member.size)
    require_written_bytes(shard, member, data)
    return data


def require_written_bytes(shard: Folder, member: Member, data: bytes) -> None:
    """Check that bytes that were read are a member of a shard.

    Raises:
        UserError: the bytes are not the bytes that were written.
    """
    if len(data) != member.size:
        raise damaged_error(shard, "it is cut")
    if google_crc32c.value(data) != member.crc32c:
        raise damaged_error(shard, "it holds other bytes than were written")
