"""WebDataset shards as they lie on disk: a tar file of samples, and a JSON index beside the tar.

The members of a sample ``key`` are ``key.0.jpg key.1.jpg … key.flac key.json``. Plain
``webdataset`` reads the tar; the index gives the byte offset and the size of every member, so that
avsnn can read any member directly.
"""

import tarfile
from pathlib import Path

from pydantic import BaseModel, ValidationError
from upath import UPath

from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.formats.damaged import damaged_error

# Names of members without the key of the sample.
AUDIO_MEMBER = "flac"
METADATA_MEMBER = "json"


class Sample(BaseModel):
    """A clip in a shard.

    Attributes:
        key: key of the clip.
        label: class of the clip, as an index.
        splits: the part of the clip in every split.
        frames: number of frames.
        height: height of every frame in px.
        width: width of every frame in px.
        audio_seconds: duration of the sound in s.
        audio_rate: sample rate of the sound in Hz.
        members: byte offset and size of each member of the tar, by the member's name.
    """

    key: str
    label: int
    splits: dict[str, str]
    frames: int
    height: int
    width: int
    audio_seconds: float
    audio_rate: int
    members: dict[str, tuple[int, int]]

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
        samples: the samples of the shard in order, still without members.
    """
    by_key = {sample.key: sample for sample in samples}
    with tarfile.open(tar) as archive:
        for member in archive:
            # WebDataset ends a key at the first dot of a name; the manifest allows no dot in a key.
            key, _, name = member.name.partition(".")
            by_key[key].members[name] = (member.offset_data, member.size)
    index = ShardIndex(shard=tar.name, samples=samples)
    tar.with_suffix(".json").write_text(index.model_dump_json(indent=1), encoding="utf-8")


def index_files(folder: Folder) -> list[Folder]:
    """Return the index files of all shards in a folder, sorted."""
    return sorted(folder.glob("*.json"), key=str)


def read_shards(folder: Folder) -> list[tuple[Folder, Sample]]:
    """Return every sample of every shard, in a fixed order, each with its shard.

    Raises:
        UserError: the index of a shard is damaged.
    """
    return [
        (path.with_suffix(".tar"), sample)
        for path in index_files(folder)
        for sample in _read_shard_index(path).samples
    ]


def _read_shard_index(path: Folder) -> ShardIndex:
    try:
        return ShardIndex.model_validate_json(path.read_bytes())
    except ValidationError:
        raise damaged_error(path) from None


def read_member(shard: Folder, span: tuple[int, int]) -> bytes:
    """Return one member of a shard, by its byte offset and size."""
    offset, size = span
    if isinstance(shard, UPath):
        found: bytes = shard.fs.cat_file(shard.path, start=offset, end=offset + size)
        return found
    with shard.open("rb") as file:
        file.seek(offset)
        return file.read(size)
