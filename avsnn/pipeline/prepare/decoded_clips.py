"""Clips that shards of an earlier generation hold already, so that nothing decodes them again."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Folder, why_damaged
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.is_done import digest_of
from avsnn.pipeline.engine.journal import Record
from avsnn.pipeline.engine.records import read_journal
from avsnn.pipeline.engine.stage import Stage
from avsnn.pipeline.formats.clip_index import IndexRow, find_hashes
from avsnn.pipeline.formats.membership import hash_order
from avsnn.pipeline.formats.shard_columns import Shard, ShardColumns, open_shard, read_shard_index
from avsnn.pipeline.formats.shards import METADATA_MEMBER, read_members
from avsnn.pipeline.media.readers import ReaderSource, suffix_of


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


class _Decoded(NamedTuple):
    """The clips of some shards, by the files from which the clips were decoded.

    Attributes:
        sources: the first 128 bits of `IndexRow.source` of each clip, in the order of `hash_order`,
            ``[N, 2]``.
        places: the number of the shard, and the row in the index of the shard, ``[N, 2]``.
        shards: the shards.
        inputs: the digest of every input of each shard, by the name of the input.
    """

    sources: NDArray[np.uint64]
    places: NDArray[np.int32]
    shards: tuple[Shard, ...]
    inputs: tuple[dict[str, str], ...]


def readers_of(row: IndexRow, readers: Mapping[str, ReaderSource]) -> dict[str, ReaderSource]:
    """Return the readers of the two files of a clip, by suffix."""
    suffixes = (suffix_of(row.audio), suffix_of(row.visual))
    return {suffix: readers[suffix] for suffix in suffixes if suffix in readers}


def reader_inputs(row: IndexRow, readers: Mapping[str, ReaderSource]) -> dict[str, str]:
    """Return what a clip depends on besides its files, by the name of the input of its shard."""
    return {reader_input(suffix): one.identity for suffix, one in readers_of(row, readers).items()}


def reader_input(suffix: str) -> str:
    """Return the name of the input of a shard that tells which reader reads a suffix."""
    return f"reader {suffix}"


def find_decoded_clips(
    extract: Stage, readers: Mapping[str, ReaderSource]
) -> Callable[[IndexRow], DecodedClip | None]:
    """Return a function that takes a clip from the earlier shards of a stage, or returns None.

    A clip is taken if it was decoded from the same files with the same settings and readers, and if
    its bytes are the bytes that were written.
    """
    decoded = _decoded_in(extract, extract.earlier)

    def take(row: IndexRow) -> DecodedClip | None:
        source = np.frombuffer(bytes.fromhex(row.source), np.uint8)
        (found,) = find_hashes(decoded.sources, _first_bits(source[None]))
        if found < 0:
            return None
        number, place = decoded.places[found]
        inputs, now = decoded.inputs[number], reader_inputs(row, readers)
        for name in (reader_input(suffix_of(row.audio)), reader_input(suffix_of(row.visual))):
            if inputs.get(name) != (digest_of(now[name]) if name in now else None):
                return None
        with suppress(UserError, OSError):
            shard = open_shard(decoded.shards[number])
            if shard.digests is None or (shard.digests["source"][place] != source).any():
                return None
            tar, sample = shard.sample(place)
            names = [name for name in sample.members if name != METADATA_MEMBER]
            data = read_members([(tar, sample.members[name]) for name in names])
            facts = {name: getattr(sample, name) for name in FACTS}
            return DecodedClip(dict(zip(names, data, strict=True)), facts)
        return None

    return take


def decoded_sources(extract: Stage, readers: Mapping[str, ReaderSource]) -> NDArray[np.uint64]:
    """Return which files the clips of the present and the earlier shards were decoded from.

    Shards whose readers have changed are left out.

    Returns:
        the first 128 bits of `IndexRow.source` of each clip, in the order of `hash_order`,
        ``[N, 2]``.
    """
    decoded = _decoded_in(extract, (extract.folder, *extract.earlier))
    now = {reader_input(suffix): digest_of(one.identity) for suffix, one in readers.items()}
    prefix = reader_input("")
    holds = [
        all(now.get(name) == digest for name, digest in inputs.items() if name.startswith(prefix))
        for inputs in decoded.inputs
    ]
    sources: NDArray[np.uint64] = decoded.sources[np.array(holds, np.bool_)[decoded.places[:, 0]]]
    return sources


def _decoded_in(extract: Stage, folders: tuple[Folder, ...]) -> _Decoded:
    journals = [(folder, extract.journal_of(folder)) for folder in folders]
    stats = [(*pair, pair[1].stat()) for pair in journals if pair[1].exists()]
    return _find_decoded(
        extract.version,
        fingerprint(extract.settings()),
        tuple((folder, path, stat.st_mtime_ns, stat.st_size) for folder, path, stat in stats),
    )


@lru_cache(maxsize=1)
def _find_decoded(
    version: int, settings: str, folders: tuple[tuple[Folder, Path, int, int], ...]
) -> _Decoded:
    """Return the clips of shards of this version and these settings.

    Args:
        version: version of the stage that decodes.
        settings: fingerprint of the settings of the stage.
        folders: each folder of shards, with its journal, and time and size of the journal; a
            changed journal makes the cached answer unused.
    """
    shards: list[Shard] = []
    inputs: list[dict[str, str]] = []
    sources, places = [np.empty((0, 2), np.uint64)], [np.empty((0, 2), np.int32)]
    for folder, journal, mtime_ns, size in folders:
        for record in read_journal(journal, mtime_ns, size).values():
            if record.version != version or fingerprint(record.settings) != settings:
                continue
            for columns in _undamaged_shards(folder, record):
                if columns.digests is None:
                    continue
                sources.append(_first_bits(columns.digests["source"]))
                numbers = np.full(len(columns), len(shards), np.int32)
                places.append(np.stack([numbers, columns.places["row"]], axis=1))
                shards.extend(columns.shards)
                inputs.extend(record.inputs for _ in columns.shards)
    found = np.concatenate(sources)
    order = hash_order(found)
    return _Decoded(found[order], np.concatenate(places)[order], tuple(shards), tuple(inputs))


def _undamaged_shards(folder: Folder, record: Record) -> Iterator[ShardColumns]:
    """Yield the clips of the shard of a record, if its files are as they were written."""
    for tar, index in zip(record.outputs[::2], record.outputs[1::2], strict=False):
        with suppress(UserError, OSError):
            if why_damaged(folder / tar.path, tar):
                continue
            # The index has no checksums of its own, unlike the members of the tar.
            data = (folder / index.path).read_bytes()
            if hashlib.sha256(data).hexdigest() == index.sha256:
                yield read_shard_index(folder / index.path, data, digests=True)


def _first_bits(sources: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the first 128 bits of SHA-256 values ``[N, 32]``, as ``[N, 2]``."""
    return np.ascontiguousarray(sources[:, :16]).view(">u8").astype(np.uint64)
