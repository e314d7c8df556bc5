"""Clips that shards of an earlier generation hold already, so that nothing decodes them again."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Folder, why_damaged
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.records import read_journal
from avsnn.pipeline.engine.stage import Stage
from avsnn.pipeline.formats.clips_jsonl import IndexRow
from avsnn.pipeline.formats.shards import (
    METADATA_MEMBER,
    Sample,
    read_member,
    read_shard_index,
)


class DecodedClip(NamedTuple):
    """A clip as a shard holds the clip.

    Attributes:
        members: the files of the clip, by the name of the member, without the metadata.
        facts: what is known about the files: the attributes of `Sample` from ``frames`` to
            ``events``, by name.
    """

    members: dict[str, bytes]
    facts: dict[str, Any]


# The attributes of `Sample` that describe the files of a clip.
FACTS = ("frames", "height", "width", "audio_seconds", "audio_rate", "events")


def find_decoded_clips(extract: Stage) -> Callable[[IndexRow], DecodedClip | None]:
    """Return a function that takes a clip from the earlier shards of a stage, or returns None.

    A clip is taken if it was decoded from the same files with the same settings, and if its bytes
    are the bytes that were written.
    """
    samples = _samples_in(extract, extract.earlier)

    def take(row: IndexRow) -> DecodedClip | None:
        if row.source not in samples:
            return None
        shard, sample = samples[row.source]
        with suppress(UserError, OSError):
            files = {
                name: read_member(shard, member)
                for name, member in sample.members.items()
                if name != METADATA_MEMBER
            }
            return DecodedClip(files, {name: getattr(sample, name) for name in FACTS})
        return None

    return take


def decoded_sources(extract: Stage) -> set[str]:
    """Return `Sample.source` of every clip that is in the present or the earlier shards."""
    return set(_samples_in(extract, (extract.folder, *extract.earlier)))


def _samples_in(extract: Stage, folders: tuple[Folder, ...]) -> Mapping[str, tuple[Folder, Sample]]:
    journals = [(folder, extract.journal_of(folder)) for folder in folders]
    stats = [(*pair, pair[1].stat()) for pair in journals if pair[1].exists()]
    return _find_samples(
        extract.version,
        fingerprint(extract.settings()),
        tuple((folder, path, stat.st_mtime_ns, stat.st_size) for folder, path, stat in stats),
    )


@lru_cache(maxsize=1)
def _find_samples(
    version: int, settings: str, folders: tuple[tuple[Folder, Path, int, int], ...]
) -> dict[str, tuple[Folder, Sample]]:
    """Return the samples of shards of this version and these settings, by `Sample.source`.

    Args:
        version: version of the stage that decodes.
        settings: fingerprint of the settings of the stage.
        folders: each folder of shards, with its journal, and time and size of the journal; a
            changed journal makes the cached answer unused.
    """
    found: dict[str, tuple[Folder, Sample]] = {}
    for folder, *journal in folders:
        for record in read_journal(*journal).values():
            if record.version != version or fingerprint(record.settings) != settings:
                continue
            # The index has no checksums of its own, unlike the members of the tar.
            if any(
                why_damaged(folder / output.path, output, rehash=output.path.endswith(".json"))
                for output in record.outputs
            ):
                continue
            for index in (folder / output.path for output in record.outputs[1:]):
                with suppress(UserError):
                    for sample in read_shard_index(index):
                        found.setdefault(sample.source, (index.with_suffix(".tar"), sample))
    return found
