"""Measures how fast recordings of event sensors are read, against numpy reading the same bytes.

Run ``python -m benchmarks.events`` in the project's folder, with the ``dev`` extra installed. Every
file is in the page cache. The rounds of all ways are interleaved, and a printed ratio is the median
of the ratios of all rounds, with the smallest and the largest in brackets.
"""

import argparse
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avsnn.datasets_manifest.recordings import EventFormat
from avsnn.pipeline.media.event_files import list_recordings, read_recording
from benchmarks.measuring import measure, print_machine, print_rates, print_ratio
from tests.pipeline.media.event_encoders import AEDAT_HEADER, write_ntidigits, write_shd

# An utterance of the known data sets has about as many spikes.
SPIKES = 10_000

# The system counts processor time in steps of 10 ms, so a round reads a file several times.
REPEATS = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as name:
        files = make_files(Path(name), args.events)
        print_machine("numpy", "h5py")
        print(f"{args.events:,} events, {args.rounds} rounds")
        for title, (file, form) in files.items():
            tasks: dict[str, Callable[[], Any]] = {
                "avsnn": partial(repeat, partial(read, file, form)),
                "numpy": partial(repeat, partial(np.fromfile, file, "u1")),
            }
            # The first round opens the containers, and brings the file into the page cache.
            measure(tasks, 1)
            costs = measure(tasks, args.rounds)
            count = args.events * REPEATS
            print_rates(f"{title}, avsnn", costs["avsnn"], count, "events")
            print_rates(f"{title}, numpy's bytes", costs["numpy"], count, "events")
            target = ", target 0.33" if title in ("AEDAT 2.0", "N-MNIST") else ""
            print_ratio("avsnn / numpy", costs["numpy"], costs["avsnn"], target)


def make_files(folder: Path, events: int) -> dict[str, tuple[Path, EventFormat]]:
    """Write one file of each format, with random events."""
    rng = np.random.default_rng(1)
    t = np.sort(rng.integers(0, 2**23, events))
    x, y, p = (rng.integers(0, size, events) for size in (34, 34, 2))
    address = np.stack([y << 8 | x << 1 | p, t], axis=1).astype(">u4")
    (folder / "a.aedat").write_bytes(AEDAT_HEADER + address.tobytes())
    records = np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], axis=1).astype("u1")
    (folder / "a.bin").write_bytes(records.tobytes())
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / f"{name}.zip", "w", method) as archive:
            archive.write(folder / "a.bin", "a.bin")
    count = max(1, events // SPIKES)
    spikes = [
        (
            np.sort(rng.random(events // count)).tolist(),
            rng.integers(0, 64, events // count).tolist(),
        )
        for _ in range(count)
    ]
    write_ntidigits(folder / "n.h5", {f"key-{i}": pair for i, pair in enumerate(spikes)}, {})
    write_shd(folder / "s.h5", spikes, [0] * count, [0] * count)
    return {
        "AEDAT 2.0": (folder / "a.aedat", "aedat2"),
        "N-MNIST": (folder / "a.bin", "n-mnist"),
        "N-MNIST in a zip, stored": (folder / "stored.zip", "n-mnist"),
        "N-MNIST in a zip, deflated": (folder / "deflated.zip", "n-mnist"),
        "N-TIDIGITS18": (folder / "n.h5", "n-tidigits"),
        "SHD": (folder / "s.h5", "shd"),
    }


def repeat(task: Callable[[], Any]) -> None:
    """Do a task several times."""
    for _ in range(REPEATS):
        task()


def read(file: Path, form: EventFormat) -> None:
    """Read all recordings of a file as avsnn does."""
    for member in list_recordings(file, form):
        read_recording(file, member, form)


if __name__ == "__main__":
    main()
