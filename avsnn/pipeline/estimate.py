"""What a run will cost before it is begun: bytes to bring, room on the disk, time."""

import os
from typing import TYPE_CHECKING, NamedTuple

from avsnn.pipeline.stage import Plan, Stage, records

if TYPE_CHECKING:
    from avsnn.pipeline.prepare import House

# A common line, 100 Mbit/s.
BYTES_PER_S = 10e6

# Clips a second that one core of an AMD EPYC brings from file to caches: videos of CREMA-D's size
# and codec, images of MNIST's.
CLIPS_PER_S = {"video": 20, "image": 100}


class Estimate(NamedTuple):
    """A plan in figures.

    Attributes:
        fetch_bytes: to bring, as far as the manifest knows sizes.
        disk_bytes: to have free.
        clips: to decode.
        seconds: for all of it, roughly.
    """

    fetch_bytes: int
    disk_bytes: int
    clips: int
    seconds: float


def missing_bytes(house: "House") -> int:
    """Bytes that fetch has yet to bring, as far as the manifest knows sizes."""
    brought = records(house.fetch)
    return sum(
        max(0, (file.size or 0) - house.fetch.partial(file).size)
        for clip in house.fetch.clips
        for file in clip.files
        if file.path not in brought
    )


def room_for(missing: int) -> int:
    """Bytes that the disk must have free: the files, and as much again twice for what follows."""
    return 3 * missing


def estimate(house: "House", planned: list[tuple[Stage, Plan]], *, workers: int | None) -> Estimate:
    """What the plan will cost with so many processes; None takes one per core, 0 none at all."""
    missing, clips = missing_bytes(house), _clips_to_do(house, planned)
    download = 0.0 if house.request.source else missing / BYTES_PER_S
    cores = os.cpu_count() or 1
    busy = max(1, min(cores, cores if workers is None else workers))
    decoding = clips / (CLIPS_PER_S[house.manifest.visual] * busy)
    return Estimate(missing, room_for(missing), clips, download + decoding)


def _clips_to_do(house: "House", planned: list[tuple[Stage, Plan]]) -> int:
    """Clips that are not in the shards and caches yet."""
    if not any(current.todo for _, current in planned):
        return 0
    decoding = (house.extract, house.frames, house.audio)
    done = [current.standing(stage).inputs for stage, current in planned if stage in decoding]
    return len(house.fetch.clips) - min(done)
