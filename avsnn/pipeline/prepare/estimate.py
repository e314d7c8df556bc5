"""What a prepare will cost: bytes to fetch, room on the disk, time."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avsnn.datasets_manifest.clips import PARTS
from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.engine.children import usable_cores
from avsnn.pipeline.engine.journal import summarise
from avsnn.pipeline.engine.stage import Stage, records
from avsnn.pipeline.formats.cache_layout import CLIPS_PER_GROUP
from avsnn.pipeline.formats.clip_index import ClipIndex, find_hashes, open_index
from avsnn.pipeline.formats.membership import group_by_hash, key_hashes
from avsnn.pipeline.prepare.build_stages import DatasetStages
from avsnn.pipeline.prepare.decoded_clips import decoded_sources
from avsnn.pipeline.prepare.described_clips import DescribedClips
from avsnn.pipeline.prepare.splits import hashes_of

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
    files = stages.fetch.files
    is_missing, sizes = ~stages.index.clips.has_record, files.sizes
    total = int(np.where(sizes > 0, sizes, unknown)[is_missing].sum())
    if not (stages.fetch.state / "downloads").exists():
        return total
    for number in np.flatnonzero(is_missing).tolist():
        file = files[number]
        total -= min(file.size or unknown, stages.fetch.partial(file).size)
    return total


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
    facts, manifest = stages.index.clips, stages.manifest
    if not len(facts) and manifest.pairs is not None:
        # The files say which clips there are, and the files are not here yet.
        return _Work(*[_expected_clips(stages)] * 4)
    hashes = hashes_of(facts.clips)[facts.order]
    # A clip with a file that is not fetched is still to be decoded; a file that was corrected is
    # fetched again, and makes another generation, in which nothing is written yet.
    is_corrected = _corrected_clips(stages)[facts.order]
    any_corrected = bool(is_corrected.any())
    has_row = facts.is_complete[facts.order]
    earlier = (stages.index.folder, *stages.index.earlier)
    before = _first_index(earlier if any_corrected else earlier[1:])
    decoded = decoded_sources(stages.extract, stages.extract.readers)
    sources = np.zeros_like(hashes)
    if before is not None or len(decoded):
        sources[has_row] = _sources(facts)
    has_row &= ~is_corrected
    is_undecoded = ~has_row | (find_hashes(decoded, sources) < 0)
    failed = [f.key for record in records(stages.extract).values() for f in record.failures]
    found = find_hashes(hashes, key_hashes(failed))
    is_undecoded[found[found >= 0]] = False
    changed = ~has_row
    if before is not None:
        changed |= _differs(facts, hashes, sources, before)
    caches = (
        _count_in_new_groups(
            _divide(hashes, CLIPS_PER_GROUP),
            _divide(
                before.hashes
                if before is not None and (cache.earlier or any_corrected)
                else hashes[:0],
                CLIPS_PER_GROUP,
            ),
            is_undecoded,
        )
        for cache in (stages.frames, stages.audio)
    )
    written: Iterable[int] = (
        summarise(stage.name, records(stage).values()).inputs
        for stage in (stages.extract, stages.frames, stages.audio)
    )
    if any_corrected:
        written = (0, 0, 0)
    shards = _clips_of_new_shards(stages, hashes, before, changed)
    numbers = (max(0, n - w) for n, w in zip((shards, *caches), written, strict=True))
    return _Work(int(is_undecoded.sum()), *numbers)


def _clips_of_new_shards(
    stages: DatasetStages,
    hashes: NDArray[np.uint64],
    before: ClipIndex | None,
    changed: NDArray[np.bool_],
) -> int:
    """Count the clips of shards that hold other clips than before, or a clip that has changed.

    Args:
        stages: the stages of the data set.
        hashes: the hashes of the clips, in order.
        before: the earlier index; None where there is none.
        changed: whether each clip has changed.
    """
    facts, chosen = stages.index.clips, stages.extract.chosen
    parts = facts.parts[stages.manifest.default_split][facts.order]
    sizes, limit = facts.clip_sizes[facts.order], chosen.largest_shard(len(facts))
    count = 0
    for part in range(len(PARTS)):
        now, then = parts == part, _Groups(hashes[:0], [])
        if before is not None:
            of_part = before.part == part
            then = _divide(
                before.hashes[of_part],
                chosen.largest_shard(len(before)),
                before.sizes[of_part],
                chosen.shard_bytes,
            )
        groups = _divide(hashes[now], limit, sizes[now], chosen.shard_bytes)
        count += _count_in_new_groups(groups, then, changed[now])
    return count


def _corrected_clips(stages: DatasetStages) -> NDArray[np.bool_]:
    """Return whether a file of each clip must be brought again, ``[N]``."""
    files, facts = stages.fetch.files, stages.index.clips
    is_corrected = np.zeros(len(files), np.bool_)
    is_corrected[files.find([*stages.fetch.changed_sources])] = True
    of_clips: NDArray[np.bool_] = np.any(is_corrected[facts.files], axis=1)
    return of_clips


def _sources(facts: DescribedClips) -> NDArray[np.uint64]:
    """Return the first 128 bits of `IndexRow.source` of each clip whose files are here."""
    digests = bytearray()
    for row, _ in facts.rows():
        digests += bytes.fromhex(row.source[:32])
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)


def _differs(
    facts: DescribedClips,
    hashes: NDArray[np.uint64],
    sources: NDArray[np.uint64],
    before: ClipIndex,
) -> NDArray[np.bool_]:
    """Return whether the row of each clip will be another row than in an earlier index.

    Args:
        facts: the clips.
        hashes: the hashes of the clips, in order, ``[N, 2]``.
        sources: `IndexRow.source` of the clips in the same order, ``[N, 2]``.
        before: the earlier index.
    """
    found = find_hashes(before.hashes, hashes)
    differs = found < 0
    now, then = facts.order[~differs], found[~differs]
    if facts.parts.keys() != before.parts.keys():
        return np.ones_like(differs)
    classes = np.array(facts.manifest.classes, np.dtypes.StringDType())
    names = np.array(before.label_names, np.dtypes.StringDType())
    labels, labels_then = facts.clips.labels[now], before.labels[then]
    differs[~differs] = (
        (sources[~differs] != before.sources[then]).any(axis=1)
        | (labels != labels_then)
        | (classes[labels] != names[labels_then])
        | (facts.clips.groups[now] != before.groups[then])
        | (facts.parts[facts.manifest.default_split][now] != before.part[then])
        | np.any([c[now] != before.parts[s][then] for s, c in facts.parts.items()], axis=0)
    )
    return differs


def _expected_clips(stages: DatasetStages) -> int:
    """Return the number of clips, as published where the files are not here yet."""
    clips, pairs = len(stages.fetch.clips), stages.manifest.pairs
    if clips or pairs is None:
        return clips
    return min(pairs.clips, stages.request.settings.limit or pairs.clips)


class _Groups(NamedTuple):
    """Clips in groups.

    Attributes:
        hashes: the hashes of the clips, in order.
        places: the number of each group, and which clips are the group.
    """

    hashes: NDArray[np.uint64]
    places: list[tuple[int, slice]]


def _divide(
    hashes: NDArray[np.uint64],
    capacity: int,
    sizes: NDArray[np.int64] | None = None,
    max_size: int | None = None,
) -> _Groups:
    return _Groups(hashes, [*group_by_hash(hashes, capacity, sizes, max_size)])


def _count_in_new_groups(groups: _Groups, before: _Groups, changed: NDArray[np.bool_]) -> int:
    """Count the clips in groups that have other clips than before, or a clip that has changed.

    Args:
        groups: the groups now.
        before: the groups before.
        changed: whether each clip has changed.
    """
    earlier, count = dict(before.places), 0
    for number, place in groups.places:
        then = before.hashes[earlier.get(number, slice(0, 0))]
        if changed[place].any() or not np.array_equal(groups.hashes[place], then):
            count += place.stop - place.start
    return count


def _first_index(folders: Iterable[Folder]) -> ClipIndex | None:
    """Return the first index in some folders, if it is whole."""
    with suppress(UserError, OSError):
        for folder in folders:
            return open_index(Path(str(folder)))
    return None


def _bytes_to_write(stages: DatasetStages, work: _Work) -> int:
    """Return the bytes of files, shards and caches that are still to be written to this disk."""
    published, fetched = stages.fetch.files.sizes, stages.index.clips.sizes
    sizes = np.where(published > 0, published, UNKNOWN_FILE_BYTES)
    total = int(np.where(fetched >= 0, fetched, sizes).sum())
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
    return bool(np.any((stages.fetch.files.sizes <= 0) & ~stages.index.clips.has_record))


def _mean_bytes(stage: Stage, default: float) -> float:
    """Return the mean size in bytes of what a stage wrote for a clip, in its latest folder."""
    for folder in (stage.folder, *stage.earlier):
        found = summarise(stage.name, records(stage, folder).values())
        if found.written:
            return found.bytes / found.written
    return default
