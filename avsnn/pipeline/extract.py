"""3. Media to frames and audio, in WebDataset shards."""

import json
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, Field, field_validator
from upath import UPath

from avsnn.pipeline.files import Folder
from avsnn.pipeline.index import IndexRow, read_index
from avsnn.pipeline.journal import Failure
from avsnn.pipeline.media import MediaError, refuse_stub
from avsnn.pipeline.settings import Settings
from avsnn.pipeline.stage import Outcome, Stage, Unit

if TYPE_CHECKING:
    from avsnn.pipeline.media.video import Frame

# The decoders are imported where they decode: a run that finds nothing to do need not wait for
# them.


class ExtractSettings(Settings):
    """What of a clip goes into its shard."""

    frames: int | str = Field(
        default="1fps",
        description="one frame per second, as published, or that many, spread over the clip",
    )
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    clips_per_shard: int = Field(default=128, ge=1)

    @field_validator("frames")
    @classmethod
    def _is_rule(cls, value: int | str) -> int | str:
        if value != "1fps" and not (isinstance(value, int) and value >= 1):
            raise ValueError("it is 1fps, or a number of frames from 1 up")
        return value


class Sample(BaseModel):
    """A clip as a shard holds it; ``members`` gives the byte offset and size of each file."""

    key: str
    label: int
    splits: dict[str, str]
    frames: int
    height: int
    width: int
    audio_seconds: float
    audio_rate: int
    members: dict[str, tuple[int, int]]


class ShardIndex(BaseModel):
    """The JSON beside a shard: its samples in order, any of which it lets one read directly."""

    shard: str
    samples: list[Sample]


@dataclass(frozen=True)
class Extract(Stage):
    """One unit per shard. ``key.0.jpg key.1.jpg … key.flac key.json``; images stay as published."""

    name: ClassVar[str] = "extract"
    version: ClassVar[int] = 2

    folder: Folder
    state: Path
    raw: Path
    index: Path
    visual: Literal["image", "video"]
    chosen: ExtractSettings

    def settings(self) -> dict[str, Any]:
        """All of them change the shards."""
        return self.chosen.model_dump()

    def units(self) -> list[Unit]:
        """Shards of consecutive clips of one part of the default split."""
        shards: dict[str, list[IndexRow]] = defaultdict(list)
        for row in read_index(self.index):
            number = row.position // self.chosen.clips_per_shard
            shards[f"{row.part}-{number:06d}"].append(row)
        return [
            Unit(
                name=name,
                outputs=(f"{name}.tar", f"{name}.json"),
                inputs={row.key: row.model_dump() for row in shards[name]},
            )
            for name in sorted(shards)
        ]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Decodes the clips of one shard one by one; memory does not grow with the shard."""
        from webdataset import TarWriter

        outcome = Outcome()
        samples: list[Sample] = []
        tar = scratch / f"{unit.name}.tar"
        # Fixed owner and time: the same clips give the same bytes.
        with (
            tar.open("wb") as stream,
            TarWriter(stream, encoder=False, user="avsnn", group="avsnn", mtime=0.0) as writer,
        ):
            for row in map(IndexRow.model_validate, unit.inputs.values()):
                try:
                    sample, files = self._read(row)
                except MediaError as error:
                    outcome.failures.append(Failure(self.name, row.key, str(error)))
                    continue
                writer.write({"__key__": row.key, **files})
                samples.append(sample)
                outcome.written += 1
        _find_members(tar, samples)
        index = ShardIndex(shard=tar.name, samples=samples)
        tar.with_suffix(".json").write_text(index.model_dump_json(indent=1), encoding="utf-8")
        return outcome

    def _read(self, row: IndexRow) -> tuple[Sample, dict[str, bytes]]:
        media = self._decode(row)
        height, width, _ = media.shape
        sample = Sample(
            key=row.key,
            label=row.label,
            splits=row.splits,
            frames=len(media.images),
            height=height,
            width=width,
            audio_seconds=media.seconds,
            audio_rate=media.rate,
            members={},
        )
        described = row.model_dump(exclude={"position", "part"})
        files = media.images | {"json": json.dumps(described, sort_keys=True).encode()}
        return sample, files | {"flac": media.flac}

    def _decode(self, row: IndexRow) -> "Media":
        """Decodes in the sandbox; after a death there, with each decoder by itself."""
        from avsnn.pipeline.media import sandbox, video

        attempts = [video.DECODERS, *((name,) for name in video.DECODERS)]
        for decoders in attempts if self.visual == "video" else attempts[:1]:
            try:
                return sandbox.call(
                    _read_clip, self.raw, row.audio, row.visual, self.visual, self.chosen, decoders
                )
            except sandbox.DecoderDiedError as error:
                died = error
        raise MediaError(f"audio {row.audio} or {self.visual} {row.visual} {died}")


def read_shards(folder: Folder) -> list[tuple[Folder, Sample]]:
    """Every sample of every shard, with the shard that holds it, in a fixed order."""
    found: list[Folder] = [*folder.glob("*.json")]
    indexes = {path: path.with_suffix(".tar") for path in sorted(found, key=str)}
    return [
        (shard, sample)
        for path, shard in indexes.items()
        for sample in ShardIndex.model_validate_json(path.read_bytes()).samples
    ]


def read_member(shard: Folder, span: tuple[int, int]) -> bytes:
    """One file of a shard, by its byte offset and size."""
    offset, size = span
    if isinstance(shard, UPath):
        found: bytes = shard.fs.cat_file(shard.path, offset, offset + size)
        return found
    with shard.open("rb") as file:
        file.seek(offset)
        return file.read(size)


class Media(NamedTuple):
    """A clip's files as a shard holds them, and what was found out on the way."""

    flac: bytes
    seconds: float
    rate: int
    images: dict[str, bytes]
    shape: tuple[int, ...]


def _read_clip(
    raw: Path,
    sound: str,
    visual: str,
    kind: Literal["image", "video"],
    chosen: ExtractSettings,
    decoders: tuple[str, ...],
) -> Media:
    from avsnn.pipeline.media import audio

    try:
        flac, seconds, rate = audio.transcode_to_flac(raw / sound)
    except MediaError as error:
        raise MediaError(f"audio {sound} {error}") from None
    try:
        if kind == "image":
            images, shape = _read_image(raw / visual)
        else:
            images, shape = _read_video(raw / visual, chosen, seconds, decoders)
    except MediaError as error:
        raise MediaError(f"{kind} {visual} {error}") from None
    return Media(flac, seconds, rate, images, shape)


def _read_image(path: Path) -> tuple[dict[str, bytes], tuple[int, ...]]:
    from avsnn.pipeline.media import video

    refuse_stub(path)
    data = path.read_bytes()
    frame = video.decode_image(data)
    return {f"0.{video.image_suffix(data)}": data}, frame.shape


def _read_video(
    path: Path, chosen: ExtractSettings, sound_seconds: float, decoders: tuple[str, ...]
) -> tuple[dict[str, bytes], tuple[int, ...]]:
    from avsnn.pipeline.media import video

    shapes = []

    def encode(frame: "Frame") -> bytes:
        shapes.append(frame.shape)
        return video.encode_jpeg(frame, chosen.jpeg_quality)

    decoded = video.decode_video(
        path, chosen.frames, sound_seconds=sound_seconds, keep=encode, decoders=decoders
    )
    return {f"{i}.jpg": data for i, data in enumerate(decoded.frames)}, shapes[0]


def _find_members(tar: Path, samples: list[Sample]) -> None:
    by_key = {sample.key: sample for sample in samples}
    with tarfile.open(tar) as archive:
        for member in archive:
            # Keys may hold no dot: the first one ends the key, as WebDataset reads it.
            key, _, name = member.name.partition(".")
            by_key[key].members[name] = (member.offset_data, member.size)
