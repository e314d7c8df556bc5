"""What a run will cost before it is begun: bytes to bring, room on the disk, time."""

import os
from typing import TYPE_CHECKING

from avsnn.pipeline.stage import Plan, Stage, records

if TYPE_CHECKING:
    from avsnn.pipeline.prepare import House

# A common line, 100 Mbit/s.
BYTES_PER_S = 10e6

# Clips a second that one core of an AMD EPYC brings from file to caches: videos of CREMA-D's size
# and codec, images of MNIST's.
CLIPS_PER_S = {"video": 20, "image": 100}


def missing_bytes(house: "House") -> int:
    """Bytes that fetch has yet to bring, as far as the manifest knows sizes."""
    brought = records(house.fetch)
    return sum(
        max(0, (file.size or 0) - house.fetch.partial(file).size)
        for clip in house.fetch.clips
        for file in clip.files
        if file.path not in brought
    )


def needed_bytes(house: "House") -> int:
    """Room that the disk must have: the files, and about as much again for shards and caches."""
    return 3 * missing_bytes(house)


def clips_to_do(house: "House", planned: list[tuple[Stage, Plan]]) -> int:
    """Clips that are not in the shards and caches yet."""
    if not any(current.todo for _, current in planned):
        return 0
    decoding = (house.extract, house.frames, house.audio)
    done = [current.standing(stage).inputs for stage, current in planned if stage in decoding]
    return len(house.fetch.clips) - min(done)


def seconds(house: "House", *, clips: int, workers: int | None) -> float:
    """Roughly how long it will take to bring the files and decode so many clips.

    ``workers`` are processes; None takes one per core, 0 works in this process.
    """
    download = 0.0 if house.request.source else missing_bytes(house) / BYTES_PER_S
    cores = os.cpu_count() or 1
    busy = max(1, min(cores, cores if workers is None else workers))
    return download + clips / (CLIPS_PER_S[house.manifest.visual] * busy)
