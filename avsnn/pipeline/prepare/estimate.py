"""What a prepare will cost: bytes to fetch, room on the disk, time."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from avsnn.datasets_manifest.clips import PARTS
from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.engine.children import usable_cores
from avsnn.pipeline.engine.stage import Stage, records
from avsnn.pipeline.formats.cache_layout import CLIPS_PER_GROUP
from avsnn.pipeline.formats.clips_jsonl import IndexRow, read_index
from avsnn.pipeline.formats.membership import group_by_hash, hash_order, key_hashes
from avsnn.pipeline.prepare.build_stages import DatasetStages
from avsnn.pipeline.prepare.decoded_clips import decoded_sources

# The estimate assumes a common internet connection of about 100 Mbit/s.
BYTES_PER_S = 10e6

# Clips per second of processor time of an AMD EPYC, from file to caches, measured with videos of
# CREMA-D's size and codec, images of MNIST's size, and events (``benchmarks/event_clips.py``).
CLIPS_PER_S = {"video": 20, "image": 100, "aedat2": 200, "n-mnist": 200}

# Bytes of the shards, and of the frame cache, for each byte of a file, before anything is written
# from which the sizes could be learnt.
SHARD_SHARE, CACHE_SHARE = 1.0, 0.5

# Side of the event camera in px, and channels of the cochlea, by the format of the recordings.
EVENT_CAMERA_SIDE = {"aedat2": 128, "n-mnist": 34}
COCHLEA_CHANNELS = {"n-tidigits": 64, "shd": 700}

# A file whose size nobody published counts as this many bytes on the disk.
UNKNOWN_FILE_BYTES = 60_000


class Estimate(NamedTuple):
    """The cost of a plan.

    Attributes:
        fetch_bytes: bytes to fetch; files whose size the manifest does not know count as 0.
        sizes_known: whether the files and their sizes are known; a data set without a published
            table is known once its files are found.
        disk_bytes: bytes that must be free on the disk.
        disk_is_guessed: whether the bytes hold a guess for files whose size nobody published.
        free_bytes: bytes that are free on the disk.
        decode: number of clips to decode into shards.
        cache: number of clips whose piece of a cache is to be computed.
        seconds: rough time for everything, in s.
    """

    fetch_bytes: int
    sizes_known: bool
    disk_bytes: int
    disk_is_guessed: bool
    free_bytes: int
    decode: int
    cache: int
    seconds: float


def missing_bytes(stages: DatasetStages, *, unknown: int = 0) -> int:
    """Return the bytes still to fetch.

    Args:
        stages: the stages of the data set.
        unknown: bytes that a file counts whose size the manifest does not know.
    """
    fetched = records(stages.fetch)
    return sum(
        max(0, (file.size or unknown) - stages.fetch.partial(file).size)
        for file in stages.fetch.files.values()
        if file.path not in fetched
    )


def free_disk_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that holds a folder; the folder need not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def estimate(stages: DatasetStages, *, workers: int | None) -> Estimate:
    """Estimate what a prepare will cost.

    Args:
        stages: the stages of the data set.
        workers: number of processes that decode; None takes one per core, 0 works in this process.
    """
    missing, work = missing_bytes(stages), _remaining_work(stages)
    cache = max(work.frames, work.audio)
    download = 0.0 if stages.fetch.source else missing / BYTES_PER_S
    is_guessed = _has_file_of_unknown_size(stages)
    cores = usable_cores()
    busy = max(1, min(cores, cores if workers is None else workers))
    decoding = max(work.decode, cache) / (CLIPS_PER_S[stages.manifest.visual] * busy)
    return Estimate(
        fetch_bytes=missing,
        sizes_known=stages.manifest.generated or not (is_guessed or not stages.fetch.files),
        disk_bytes=_bytes_to_write(stages, work),
        disk_is_guessed=is_guessed,
        free_bytes=free_disk_bytes(stages.folder),
        decode=work.decode,
        cache=cache,
        seconds=download + decoding,
    )


class _Work(NamedTuple):
    """Numbers of clips.

    Attributes:
        decode: clips to decode.
        shards: clips of shards that are not written yet; most of them may be copied.
        frames: clips whose piece of the frame cache is not written yet.
        audio: clips whose piece of the audio cache is not written yet.
    """

    decode: int
    shards: int
    frames: int
    audio: int


def _remaining_work(stages: DatasetStages) -> _Work:
    """Compare the clips with what this and earlier prepares wrote.

    The comparison looks at clips and not at units, because the units of later stages are not known
    before the index is written.
    """
    clips, manifest = stages.index.clips, stages.manifest
    if not clips and manifest.pairs is not None:
        # The files say which clips there are, and the files are not here yet.
        return _Work(*[_expected_clips(stages)] * 4)
    rows = {row.key: row for row in stages.index.rows()}
    decoded = {high << 64 | low for high, low in decoded_sources(stages.extract).tolist()}
    # A clip without a row is still to be fetched; a file that was corrected is fetched again, and
    # makes another generation, in which nothing is written yet.
    corrected = set(stages.fetch.changed_sources())
    earlier = (stages.index.folder, *stages.index.earlier) if corrected else stages.index.earlier
    before = {row.key: row for row in _first_rows(earlier)}
    for clip in stages.fetch.clips:
        if not corrected.isdisjoint(file.path for file in clip.files):
            rows.pop(clip.key, None)
    undecoded = {
        key for key in clips if key not in rows or int(rows[key].source[:32], 16) not in decoded
    }
    failures = (f for record in records(stages.extract).values() for f in record.failures)
    undecoded -= {failure.key for failure in failures}
    changed = {key for key in clips if key not in rows or rows[key] != before.get(key)}
    shards = sum(
        _count_in_new_groups(
            [key for key in clips if clips[key]["splits"][manifest.default_split] == part],
            [key for key, row in before.items() if row.part == part],
            changed,
            stages.extract.chosen.largest_shard(len(rows)),
        )
        for part in PARTS
    )
    caches = (
        _count_in_new_groups(
            clips, before if cache.earlier or corrected else (), undecoded, CLIPS_PER_GROUP
        )
        for cache in (stages.frames, stages.audio)
    )
    written: Iterable[int] = (
        sum(record.written + record.skipped + len(record.failures) for record in found.values())
        for found in map(records, (stages.extract, stages.frames, stages.audio))
    )
    if corrected:
        written = (0, 0, 0)
    numbers = (max(0, n - w) for n, w in zip((shards, *caches), written, strict=True))
    return _Work(len(undecoded), *numbers)


def _expected_clips(stages: DatasetStages) -> int:
    """Return the number of clips, as published where the files are not here yet."""
    clips, pairs = len(stages.fetch.clips), stages.manifest.pairs
    if clips or pairs is None:
        return clips
    return min(pairs.clips, stages.request.settings.limit or pairs.clips)


def _count_in_new_groups(
    keys: Iterable[str], before: Iterable[str], changed: set[str], capacity: int
) -> int:
    """Count the keys in groups that have other keys than before, or a key that has changed."""
    earlier = _group_keys(before, capacity)
    return sum(
        len(group)
        for number, group in _group_keys(keys, capacity).items()
        if group != earlier.get(number) or not changed.isdisjoint(group)
    )


def _group_keys(keys: Iterable[str], capacity: int) -> dict[int, list[str]]:
    """Return the keys of each group, by the number of the group."""
    listed = list(keys)
    hashes = key_hashes(listed)
    order = hash_order(hashes)
    groups = group_by_hash(hashes[order], capacity)
    return {number: [listed[row] for row in order[rows]] for number, rows in groups}


def _first_rows(folders: Iterable[Folder]) -> list[IndexRow]:
    """Return the rows of the first index in some folders; no rows where there is none."""
    with suppress(UserError, OSError):
        for folder in folders:
            return read_index(Path(str(folder)))
    return []


def _bytes_to_write(stages: DatasetStages, work: _Work) -> int:
    """Return the bytes of files, shards and caches that are still to be written to this disk."""
    fetched = records(stages.fetch)
    sizes = {path: record.outputs[0].size for path, record in fetched.items() if record.outputs}
    files = stages.fetch.files.values()
    total = sum(sizes.get(file.path, file.size or UNKNOWN_FILE_BYTES) for file in files)
    # A link needs no room.
    missing = 0 if stages.fetch.makes_links else missing_bytes(stages, unknown=UNKNOWN_FILE_BYTES)
    if stages.request.store is not None:
        return missing
    of_a_clip = total / max(1, _expected_clips(stages))
    frame_bytes, audio_bytes = _cache_bytes_of_a_clip(stages, of_a_clip)
    shards = _mean_bytes(stages.extract, default=SHARD_SHARE * of_a_clip)
    frames = _mean_bytes(stages.frames, default=frame_bytes)
    audio = _mean_bytes(stages.audio, default=audio_bytes)
    return missing + round(work.shards * shards + work.frames * frames + work.audio * audio)


def _cache_bytes_of_a_clip(stages: DatasetStages, of_a_clip: float) -> tuple[float, float]:
    """Return the bytes of a clip in the frame cache and in the audio cache, before any is written.

    Args:
        stages: the stages of the data set.
        of_a_clip: bytes of the files of a clip.
    """
    settings, manifest = stages.request.settings, stages.manifest
    if not manifest.has_events:
        return CACHE_SHARE * of_a_clip, 4 * settings.audio.size**2
    events = settings.events
    side = events.crop or -(-EVENT_CAMERA_SIDE[manifest.visual] // events.downsample)
    return events.steps * 2 * side**2, events.steps * COCHLEA_CHANNELS[manifest.audio]


def _has_file_of_unknown_size(stages: DatasetStages) -> bool:
    fetched = records(stages.fetch)
    files = stages.fetch.files.values()
    return any(not file.size and file.path not in fetched for file in files)


def _mean_bytes(stage: Stage, default: float) -> float:
    """Return the mean size in bytes of what a stage wrote for a clip, in its latest folder."""
    for folder in (stage.folder, *stage.earlier):
        found = records(stage, folder).values()
        if clips := sum(record.written for record in found):
            return sum(output.size for record in found for output in record.outputs) / clips
    return default
