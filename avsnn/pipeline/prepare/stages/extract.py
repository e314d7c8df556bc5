"""3. Media to frames and sound, or recordings to events, in WebDataset shards."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from avsnn.datasets_manifest.clips import PART_OF_CODE, split_recording
from avsnn.datasets_manifest.recordings import EVENT_FORMATS
from avsnn.pipeline.engine.journal import Failure
from avsnn.pipeline.engine.plan import RUN, Plan
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit
from avsnn.pipeline.formats.clip_index import (
    ROWS,
    IndexRow,
    open_index,
    read_lines,
    read_rows,
)
from avsnn.pipeline.formats.membership import group_by_hash
from avsnn.pipeline.formats.shard_index import INDEX_SUFFIX, ShardWriter
from avsnn.pipeline.formats.shards import (
    AUDIO_EVENTS_MEMBER,
    AUDIO_MEMBER,
    METADATA_MEMBER,
    VISUAL_EVENTS_MEMBER,
    EventSensors,
    Sample,
)
from avsnn.pipeline.media.errors import MediaError, failures_of
from avsnn.pipeline.media.readers import load_readers, suffix_of
from avsnn.pipeline.prepare.clip_members import (
    file_of,
    read_event_member,
    read_image_members,
    read_sound_member,
    read_video_members,
)
from avsnn.pipeline.prepare.decoded_clips import (
    DecodedClip,
    find_decoded_clips,
    reader_input,
    reader_inputs,
    readers_of,
)
from avsnn.pipeline.prepare.generations import earlier_generations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from avsnn.pipeline.engine.atomic_files import Folder
    from avsnn.pipeline.formats.prepare_settings import ExtractSettings
    from avsnn.pipeline.media.events import Events
    from avsnn.pipeline.media.readers import ReaderSource

# Folder in the scratch folder of a shard that holds the files of one clip that lie in a zip.
UNPACKED = "unpacked"


def divide_into_shards(
    hashes: NDArray[np.uint64],
    parts: NDArray[np.uint8],
    sizes: NDArray[np.int64],
    settings: ExtractSettings,
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield the name of each shard, and the rows of its clips; the clips are of one part.

    Args:
        hashes: the hashes of the clips in the order of `hash_order`, ``[N, 2]``.
        parts: the part of each clip, as an index of `PART_OF_CODE`, ``[N]``.
        sizes: the bytes of the files of each clip, ``[N]``.
        settings: how large a shard is.
    """
    largest = settings.largest_shard(len(hashes))
    for part in sorted(PART_OF_CODE):
        rows = np.flatnonzero(parts == PART_OF_CODE.index(part))
        groups = group_by_hash(hashes[rows], largest, sizes[rows], settings.shard_bytes)
        for number, group in groups:
            yield f"{part}-{number:06d}", rows[group]


@dataclass(frozen=True)
class Extract(Stage):
    """Decodes clips into shards; a unit is a shard. Images and events stay as published.

    Attributes:
        raw: the folder of the files as published.
        index: the folder of ``clips.jsonl``.
        split: the default split.
        visual: what the visual files are; see `Manifest.visual`.
        audio: what the audio files are; see `Manifest.audio`.
        chosen: the settings.
        readers: where the reader of each suffix comes from, for files that avsnn does not decode
            itself.
    """

    name: ClassVar[str] = "extract"
    version: ClassVar[int] = 4
    decodes: ClassVar[bool] = True

    folder: Folder
    state: Path
    raw: Path
    index: Path
    split: str
    visual: str
    audio: str
    chosen: ExtractSettings
    readers: Mapping[str, ReaderSource] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return all settings, and the kind of the visual files: every one changes the shards."""
        settings = {**self.chosen.model_dump(), "visual": self.visual}
        # Earlier versions knew sound alone, and did not name it.
        return settings if self.audio == "sound" else {**settings, "audio": self.audio}

    @property
    def earlier(self) -> tuple[Folder, ...]:
        """The shards of other clips with the same settings."""
        return earlier_generations(self.folder, self.state)

    def units(self) -> Iterator[Unit]:
        """Yield the shards; a shard holds clips of one part of the default split."""
        if not (self.index / ROWS).exists():
            return
        index = open_index(self.index)
        shards = divide_into_shards(index.hashes, index.parts[self.split], index.sizes, self.chosen)
        for name, rows in shards:
            offsets = index.offsets[rows]
            lines = hashlib.sha256()
            for line in read_lines(self.index, offsets.tolist()):
                lines.update(line)
            # A changed reader changes the shards that hold its clips, and no other shard.
            readers: dict[str, str] = {}
            for row in read_rows(self.index, offsets.tolist()) if self.readers else ():
                readers |= reader_inputs(row, self.readers)
            yield Unit(
                name=name,
                outputs=(f"{name}.tar", f"{name}{INDEX_SUFFIX}"),
                inputs={"list of clips": lines.hexdigest(), **dict(sorted(readers.items()))},
                work=offsets,
            )

    def needed_readers(self, planned: Plan) -> list[str]:
        """Return the suffixes whose readers the units of a plan need that have to run."""
        names = {
            name for unit, mark in planned.marked_units() if mark == RUN for name in unit.inputs
        }
        return [suffix for suffix in sorted(self.readers) if reader_input(suffix) in names]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Decode the clips of a shard one by one; memory grows with the index of the shard alone.

        A clip that an earlier shard holds already is copied from there.
        """
        outcome = Outcome()
        decoded_before = find_decoded_clips(self, self.readers)
        with ShardWriter(scratch / f"{unit.name}.tar") as writer:
            for row in read_rows(self.index, unit.work.tolist()):
                try:
                    clip = decoded_before(row) or self._decode(row, scratch / UNPACKED)
                except MediaError as error:
                    outcome.failures.append(Failure(self.name, row.key, str(error)))
                    continue
                sample = Sample(key=row.key, label=row.label, splits=row.splits, **clip.facts)
                writer.add(sample, row.source, _members(row, clip))
                outcome.written += 1
        outcome.digests.update(writer.digests)
        return outcome

    def _decode(self, row: IndexRow, room: Path) -> DecodedClip:
        """Decode a clip in the sandbox; ``room`` holds files from a zip for as long as needed."""
        from avsnn.pipeline.media import sandbox

        # FFmpeg takes a relative path with a colon for an address.
        raw = self.raw.absolute()
        form, kinds = (self.visual, self.audio), ("audio", self.visual)
        try:
            if self.visual in EVENT_FORMATS:
                kinds = ("recording", "recording")
                return sandbox.call(_read_events, raw, row.audio, row.visual, form)
            names = (row.audio, row.visual)
            readers = readers_of(row, self.readers)
            return sandbox.call(_read_clip, raw, *names, form, self.chosen, room, readers)
        except sandbox.DecoderDiedError as died:
            raise MediaError(f"{kinds[0]} {row.audio} or {kinds[1]} {row.visual} {died}") from None
        finally:
            # A decoder that died removes nothing.
            shutil.rmtree(room, ignore_errors=True)


def _members(row: IndexRow, clip: DecodedClip) -> dict[str, bytes]:
    metadata = row.model_dump(exclude={"part"})
    return clip.members | {METADATA_MEMBER: json.dumps(metadata, sort_keys=True).encode()}


def _read_clip(
    raw: Path,
    sound: str,
    visual: str,
    form: tuple[str, str],
    settings: ExtractSettings,
    room: Path | None = None,
    readers: Mapping[str, ReaderSource] = MappingProxyType({}),
) -> DecodedClip:
    """Decode an image or a video, and a sound.

    Args:
        raw: the folder of the files as published.
        sound: path of the sound.
        visual: path of the image or the video.
        form: what the visual files and the audio files are.
        settings: which frames are wanted.
        room: folder for files from a zip; None where no file lies in a zip.
        readers: where the readers of the two suffixes come from; empty where avsnn decodes.

    Raises:
        MediaError: a file cannot be decoded.
        UserError: a reader cannot run in this process, which says nothing about the clip.
    """
    kind, _ = form
    loaded = load_readers(readers)
    with failures_of(f"audio {sound}"):
        reader = loaded.get(suffix_of(sound))
        flac, seconds, rate = read_sound_member(file_of(raw, sound, room), reader)
    with failures_of(f"{kind} {visual}"):
        file, reader = file_of(raw, visual, room), loaded.get(suffix_of(visual))
        if kind == "image":
            images, shape = read_image_members(file, settings, reader)
        else:
            images, shape = read_video_members(file, settings, seconds, reader)
    height, width, _ = shape
    return DecodedClip(
        images | {AUDIO_MEMBER: flac},
        {
            "frames": len(images),
            "height": height,
            "width": width,
            "audio_seconds": seconds,
            "audio_rate": rate,
        },
    )


def _read_events(raw: Path, sound: str, visual: str, form: tuple[str, str]) -> DecodedClip:
    """Read two recordings of events; no setting changes what is read."""
    seen, seen_npz = _read_recording(raw, visual, form[0])
    heard, heard_npz = _read_recording(raw, sound, form[1])
    span = float(heard.t.max()) - float(heard.t.min())
    return DecodedClip(
        {VISUAL_EVENTS_MEMBER: seen_npz, AUDIO_EVENTS_MEMBER: heard_npz},
        {
            "frames": 0,
            "height": seen.sensor.height,
            "width": seen.sensor.width,
            "audio_seconds": span if heard.t.dtype.kind == "f" else span / 1e6,
            "audio_rate": 0,
            "events": EventSensors(
                visual=seen.sensor,
                audio=heard.sensor,
                visual_events=len(seen.t),
                audio_events=len(heard.t),
            ),
        },
    )


def _read_recording(raw: Path, recording: str, form: Any) -> tuple[Events, bytes]:
    """Return the events of a recording, and the events as a member of a shard."""
    file, member = split_recording(recording)
    with failures_of(f"recording {recording}"):
        return read_event_member(raw / file, member, form)
