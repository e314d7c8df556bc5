"""Measures how fast event recordings are read, counted into frames, and prepared.

Run ``python -m benchmarks.events`` in the project's folder, with the ``dev`` extra installed. The
recordings are made up (``tests/event_files.py``), with as many events as real recordings. All
readers take turns in every round. The whole preparation runs as ``avsnn prepare`` with two numbers
of clips, and rates are the difference of the two, so the start of the command does not count.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.datasets_manifest.recordings import EventFormat
from avsnn.pipeline.formats.event_npz import event_npz, read_event_npz
from avsnn.pipeline.formats.event_rows import event_row
from avsnn.pipeline.formats.prepare_settings import EventSettings
from avsnn.pipeline.media.event_files import read_recording
from benchmarks.measuring import measure, print_machine, print_rates, print_ratio
from tests.event_files import (
    Utterance,
    aedat_bytes,
    nmnist_bytes,
    write_ntidigits,
    write_shd,
    write_zip,
)

# Number of events of a recording: as a real recording of MNIST-DVS has, and as is typical of the
# others.
COUNTS: dict[EventFormat, int] = {
    "aedat2": 15_744,
    "n-mnist": 4_200,
    "n-tidigits": 5_000,
    "shd": 8_000,
}

# Length of a recording in us.
LENGTHS_US = {"aedat2": 2_200_000, "n-mnist": 300_000, "n-tidigits": 800_000, "shd": 800_000}

SETTINGS = EventSettings()
SPEAKERS = 12
PROJECT = Path(__file__).parents[1] / "avsnn/datasets_manifest"


class Recording(NamedTuple):
    """A recording that was written: file, name in the file, and format."""

    file: Path
    member: str
    form: EventFormat


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as name:
        folder = Path(name)
        print_machine("numpy", "h5py", "webdataset", "distributed")
        compare_readers(folder, args.rounds)
        measure_prepare(folder, "mnistdvs-ntidigits", write_mnistdvs_ntidigits, args.clips)
        measure_prepare(folder, "nmnist-shd", write_nmnist_shd, args.clips)


def drawn(form: EventFormat, number: int, side: int) -> list[Any]:
    """Return times in us that rise, columns, rows and polarities of a recording."""
    rng, count = np.random.default_rng(number), COUNTS[form]
    t = np.sort(rng.integers(0, LENGTHS_US[form], count))
    return [
        t,
        rng.integers(0, side, count),
        rng.integers(0, side, count),
        rng.integers(0, 2, count),
    ]


def spikes(form: EventFormat, number: int, channels: int) -> tuple[Any, Any]:
    """Return times in s that rise, and channels of an utterance."""
    t, x, _, _ = drawn(form, number, channels)
    return t / 1e6, x


def write_mnistdvs_ntidigits(folder: Path, clips: int) -> None:
    """Write files as the publishers of MNIST-DVS and N-TIDIGITS18 do; two clips share a sound."""
    for digit in range(10):
        members = {
            f"grabbed_data{digit}/scale4/mnist_{digit}_scale04_{i:04d}.aedat": aedat_bytes(
                *drawn("aedat2", i, 128)
            )
            for i in range(1, clips // 10 + 1)
        }
        write_zip(folder / f"grabbed_data{digit}.zip", members)
    parts = {
        part: {
            f"man-{chr(97 + i % SPEAKERS)}{part[1]}-{i}-{'z123456789'[i % 10]}": spikes(
                "n-tidigits", i, 64
            )
            for i in range(clips // 4)
        }
        for part in ("train", "test")
    }
    write_ntidigits(folder / "n-tidigits.hdf5", parts)


def write_nmnist_shd(folder: Path, clips: int) -> None:
    """Write files as the publishers of N-MNIST and SHD do."""
    for part in ("train", "test"):
        members = {
            f"{part.title()}/{i % 10}/{i:05d}.bin": nmnist_bytes(*drawn("n-mnist", i, 34))
            for i in range(clips // 2)
        }
        write_zip(folder / f"{part.title()}.zip", members)
        utterances = [
            Utterance(*spikes("shd", i, 700), i % 20, i % SPEAKERS) for i in range(clips // 2)
        ]
        write_shd(folder / f"shd_{part}.h5", utterances)


def compare_readers(folder: Path, rounds: int, *, repeats: int = 400) -> None:
    """Compare each reader, and the way of a clip to frames, with numpy reading the same bytes."""
    write_mnistdvs_ntidigits(folder, 40)
    write_nmnist_shd(folder, 40)
    # Files of their own, as some people unpack the archives.
    (folder / "x.aedat").write_bytes(aedat_bytes(*drawn("aedat2", 1, 128)))
    (folder / "x.bin").write_bytes(nmnist_bytes(*drawn("n-mnist", 1, 34)))
    recordings: list[tuple[str, str, EventFormat]] = [
        ("x.aedat", "", "aedat2"),
        ("grabbed_data3.zip", "grabbed_data3/scale4/mnist_3_scale04_0002.aedat", "aedat2"),
        ("x.bin", "", "n-mnist"),
        ("Train.zip", "Train/3/00003.bin", "n-mnist"),
        ("n-tidigits.hdf5", "train/man-dr-3-3", "n-tidigits"),
        ("shd_train.h5", "00003-3-3", "shd"),
    ]
    for file, member, form in recordings:
        compare_reader(folder, Recording(folder / file, member, form), rounds, repeats)


def compare_reader(folder: Path, recording: Recording, rounds: int, repeats: int) -> None:
    """Compare the reader of one recording, and the way to frames, with numpy."""
    file, member, form = recording
    events = read_recording(file, member, form)
    data, plain = event_npz(events), folder / "plain.npy"
    np.save(plain, np.stack([events.t, events.x]))
    ways: dict[str, Callable[[], Any]] = {
        "numpy": partial(np.load, plain) if member else partial(np.fromfile, file, np.uint8),
        "reader": partial(read_recording, file, member, form),
        "to shard": lambda: event_npz(read_recording(file, member, form)),
        "from shard to frames": lambda: event_row(read_event_npz(data), SETTINGS),
    }
    print(f"{form}, {file.suffix}, {len(events.t):,} events, {len(data):,} bytes in a shard")
    costs = measure({name: partial(repeat, way, repeats) for name, way in ways.items()}, rounds)
    for name, cost in costs.items():
        print_rates(f"  {name}", cost, len(events.t) * repeats, "events")
    print_ratio("  reader / numpy", costs["reader"], costs["numpy"])


def repeat(task: Callable[[], Any], times: int) -> None:
    """Call a task again and again."""
    for _ in range(times):
        task()


def measure_prepare(
    folder: Path, name: str, write: Callable[[Path, int], None], clips: int
) -> None:
    """Print clips per second of `avsnn prepare`, from two data sets of different sizes."""
    facts = yaml.safe_load((PROJECT / f"{name}.yaml").read_text())
    for recordings in (facts["pairs"]["visual"], facts["pairs"]["audio"]):
        # The made files have other sums, and lie there unpacked.
        recordings["files"] = [{"path": file["path"]} for file in recordings["files"]]
    costs = [prepare(folder, facts, write, size) for size in (clips // 4, clips)]
    (few, few_s, few_cpu), (many, many_s, many_cpu) = costs
    rate, core_rate = (many - few) / (many_s - few_s), (many - few) / (many_cpu - few_cpu)
    print(
        f"{name}: {many:,} clips in {many_s:.1f} s and {few:,} in {few_s:.1f} s: {rate:,.0f} "
        f"clips/s, {core_rate:,.0f} clips per second of processor time; 10,000 clips take "
        f"{(few_s + (10_000 - few) / rate) / 60:.1f} min",
        flush=True,
    )


def prepare(
    folder: Path, facts: dict[str, Any], write: Callable[[Path, int], None], clips: int
) -> tuple[int, float, float]:
    """Prepare that many clips; return the number of clips, seconds, and processor time in s."""
    place = folder / f"{facts['name']}-{clips}"
    (place / "source").mkdir(parents=True)
    (place / "datasets").mkdir()
    write(place / "source", clips)
    name = f"made-{facts['name']}"
    text = yaml.safe_dump({**facts, "name": name})
    (place / "datasets" / f"{name}.yaml").write_text(text)
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "avsnn", "prepare", name, "--source", "source", "--workers", "2"],
        cwd=place,
        env={**os.environ, USER_FOLDER_VARIABLE: "datasets"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    table = (place / "data" / name).rglob("clips.csv")
    return len(next(table).read_text().splitlines()) - 1, seconds, cpu


if __name__ == "__main__":
    main()
