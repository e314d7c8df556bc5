"""What a prepare will cost: bytes to fetch, room on the disk, time."""

import shutil
from pathlib import Path
from typing import NamedTuple

from avsnn.pipeline.engine.children import usable_cores
from avsnn.pipeline.engine.plan import Plan
from avsnn.pipeline.engine.stage import Stage, records
from avsnn.pipeline.prepare.build_stages import DatasetStages

# The estimate assumes a common internet connection of about 100 Mbit/s.
BYTES_PER_S = 10e6

# Clips per second that one core of an AMD EPYC takes from file to caches, measured with videos of
# CREMA-D's size and codec, and with images of MNIST's size.
CLIPS_PER_S = {"video": 20, "image": 100}


class Estimate(NamedTuple):
    """The cost of a plan.

    Attributes:
        fetch_bytes: bytes to fetch; files whose size the manifest does not know count as 0.
        sizes_known: whether the files are known; a data set without a published table is known
            once its files are found.
        disk_bytes: bytes that must be free on the disk.
        free_bytes: bytes that are free on the disk.
        clips: number of clips to decode.
        seconds: rough time for everything, in s.
    """

    fetch_bytes: int
    sizes_known: bool
    disk_bytes: int
    free_bytes: int
    clips: int
    seconds: float


def missing_bytes(stages: DatasetStages) -> int:
    """Return the bytes still to fetch; files whose size the manifest does not know count as 0."""
    fetched = records(stages.fetch)
    return sum(
        max(0, (file.size or 0) - stages.fetch.partial(file).size)
        for clip in stages.fetch.clips
        for file in clip.files
        if file.path not in fetched
    )


def needed_disk_bytes(missing: int) -> int:
    """Return the bytes that must be free: the missing files, and twice their size for the rest."""
    return 3 * missing


def free_disk_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that holds a folder; the folder need not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def estimate(
    stages: DatasetStages, planned: list[tuple[Stage, Plan]], *, workers: int | None
) -> Estimate:
    """Estimate the cost of a plan.

    Args:
        stages: the stages of the data set.
        planned: every stage with its plan.
        workers: number of processes that decode; None takes one per core, 0 works in this process.
    """
    missing, clips = missing_bytes(stages), _clips_to_decode(stages, planned)
    download = 0.0 if stages.request.source else missing / BYTES_PER_S
    cores = usable_cores()
    busy = max(1, min(cores, cores if workers is None else workers))
    decoding = clips / (CLIPS_PER_S[stages.manifest.visual] * busy)
    return Estimate(
        fetch_bytes=missing,
        sizes_known=bool(stages.fetch.clips) or stages.discover is None,
        disk_bytes=needed_disk_bytes(missing),
        free_bytes=free_disk_bytes(stages.folder),
        clips=clips,
        seconds=download + decoding,
    )


def _clips_to_decode(stages: DatasetStages, planned: list[tuple[Stage, Plan]]) -> int:
    """Return the number of clips that are missing in the shards or in a cache."""
    if not any(current.todo for _, current in planned):
        return 0
    decoding = (stages.extract, stages.frames, stages.audio)
    done = [current.up_to_date(stage).inputs for stage, current in planned if stage in decoding]
    return len(stages.fetch.clips) - min(done)
