"""3. Media to frames and sound, in WebDataset shards."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.engine.journal import Failure
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit
from avsnn.pipeline.formats.clips_jsonl import IndexRow, read_index
from avsnn.pipeline.formats.membership import group_by_hash
from avsnn.pipeline.formats.prepare_settings import ExtractSettings
from avsnn.pipeline.formats.shards import (
    AUDIO_MEMBER,
    METADATA_MEMBER,
    Sample,
    frame_member_name,
    write_shard_index,
)
from avsnn.pipeline.media.errors import MediaError, failures_of, require_content
from avsnn.pipeline.prepare.decoded_clips import DecodedClip, find_decoded_clips
from avsnn.pipeline.prepare.generations import earlier_generations

if TYPE_CHECKING:
    from avsnn.pipeline.media.frames import Frame

# The functions that decode import the decoders, so that a run which finds nothing to do need not
# wait for the import.


@dataclass(frozen=True)
class Extract(Stage):
    """Decodes clips into shards; a unit is a shard. Images stay as published.

    Attributes:
        raw: the folder of the files as published.
        index: the folder of ``clips.jsonl``.
        visual: whether the visual files are images or videos.
        chosen: the settings.
    """

    name: ClassVar[str] = "extract"
    version: ClassVar[int] = 3
    decodes: ClassVar[bool] = True

    folder: Folder
    state: Path
    raw: Path
    index: Path
    visual: Literal["image", "video"]
    chosen: ExtractSettings

    def settings(self) -> dict[str, Any]:
        """Return all settings, and the kind of the visual files: every one changes the shards."""
        return {**self.chosen.model_dump(), "visual": self.visual}

    @property
    def earlier(self) -> tuple[Folder, ...]:
        """The shards of other clips with the same settings."""
        return earlier_generations(self.folder, self.state)

    def units(self) -> list[Unit]:
        """Return the shards; a shard holds clips of one part of the default split."""
        rows_of_part: dict[str, dict[str, IndexRow]] = defaultdict(dict)
        for row in read_index(self.index):
            rows_of_part[row.part][row.key] = row
        return [
            Unit(
                name=name,
                outputs=(f"{name}.tar", f"{name}.json"),
                inputs={key: rows[key].model_dump() for key in keys},
            )
            for part, rows in sorted(rows_of_part.items())
            for number, keys in group_by_hash(rows, self.chosen.clips_per_shard).items()
            for name in [f"{part}-{number:06d}"]
        ]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Decode the clips of a shard one by one; memory does not grow with the shard.

        A clip that an earlier shard holds already is copied from there.
        """
        from webdataset import TarWriter

        outcome = Outcome()
        decoded_before = find_decoded_clips(self)
        samples: list[Sample] = []
        tar = scratch / f"{unit.name}.tar"
        # Owner and time are fixed, so that the same clips give the same bytes.
        with (
            tar.open("wb") as stream,
            TarWriter(stream, encoder=False, user="avsnn", group="avsnn", mtime=0.0) as writer,
        ):
            for row in map(IndexRow.model_validate, unit.inputs.values()):
                try:
                    clip = decoded_before(row) or self._decode(row)
                except MediaError as error:
                    outcome.failures.append(Failure(self.name, row.key, str(error)))
                    continue
                writer.write({"__key__": row.key, **_members(row, clip)})
                samples.append(_sample(row, clip))
                outcome.written += 1
        write_shard_index(tar, samples)
        return outcome

    def _decode(self, row: IndexRow) -> DecodedClip:
        """Decode a clip in the sandbox."""
        from avsnn.pipeline.media import sandbox

        # FFmpeg takes a relative path with a colon for an address.
        raw = self.raw.absolute()
        try:
            return sandbox.call(_read_clip, raw, row.audio, row.visual, self.visual, self.chosen)
        except sandbox.DecoderDiedError as died:
            raise MediaError(f"audio {row.audio} or {self.visual} {row.visual} {died}") from None


def _sample(row: IndexRow, clip: DecodedClip) -> Sample:
    return Sample(
        key=row.key,
        label=row.label,
        splits=row.splits,
        source=row.source,
        frames=len(clip.images),
        height=clip.height,
        width=clip.width,
        audio_seconds=clip.seconds,
        audio_rate=clip.rate,
    )


def _members(row: IndexRow, clip: DecodedClip) -> dict[str, bytes]:
    metadata = row.model_dump(exclude={"part"})
    return clip.images | {
        METADATA_MEMBER: json.dumps(metadata, sort_keys=True).encode(),
        AUDIO_MEMBER: clip.flac,
    }


def _read_clip(
    raw: Path,
    sound: str,
    visual: str,
    kind: Literal["image", "video"],
    settings: ExtractSettings,
) -> DecodedClip:
    from avsnn.pipeline.media import audio

    with failures_of(f"audio {sound}"):
        flac, seconds, rate = audio.transcode_to_flac(raw / sound)
    with failures_of(f"{kind} {visual}"):
        if kind == "image":
            images, shape = _read_image(raw / visual)
        else:
            images, shape = _read_video(raw / visual, settings, seconds)
    height, width, _ = shape
    return DecodedClip(flac, seconds, rate, images, height, width)


def _read_image(path: Path) -> tuple[dict[str, bytes], tuple[int, ...]]:
    from avsnn.pipeline.media.image import decode_whole_image, image_suffix

    require_content(path)
    data = path.read_bytes()
    frame = decode_whole_image(data)
    return {frame_member_name(0, image_suffix(data)): data}, frame.shape


def _read_video(
    path: Path, settings: ExtractSettings, sound_seconds: float
) -> tuple[dict[str, bytes], tuple[int, ...]]:
    from avsnn.pipeline.media.image import encode_jpeg
    from avsnn.pipeline.media.video import decode_video

    shapes = []

    def encode(frame: "Frame") -> bytes:
        shapes.append(frame.shape)
        return encode_jpeg(frame, settings.jpeg_quality)

    decoded = decode_video(path, settings.frames, sound_seconds=sound_seconds, transform=encode)
    images = {frame_member_name(i, "jpg"): data for i, data in enumerate(decoded.frames)}
    return images, shapes[0]
