"""Measures how fast clips of event sensors become shards, event frames and caches.

Run ``python -m benchmarks.event_clips`` in the project's folder, with the ``dev`` extra installed.
The recordings are made up, with as many events as real recordings. The whole preparation runs as
``avsnn prepare`` on two numbers of clips, and rates come from the difference of the two, so that
the start of the command does not count. ``benchmarks/events.py`` measures the readers alone.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.datasets_manifest.recordings import EventFormat
from avsnn.pipeline.formats.event_npz import event_npz, read_event_npz
from avsnn.pipeline.formats.event_rows import event_row
from avsnn.pipeline.formats.prepare_settings import EventSettings
from avsnn.pipeline.media.address_events import parse_aedat, parse_nmnist
from benchmarks.measuring import measure, print_machine, print_rates
from tests.pipeline.media.event_encoders import (
    Event,
    Spikes,
    aedat_bytes,
    nmnist_bytes,
    write_ntidigits,
    write_shd,
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as name:
        folder = Path(name)
        print_machine("numpy", "h5py", "webdataset", "distributed")
        measure_frames(args.rounds)
        measure_prepare(folder, "mnistdvs-ntidigits", write_mnistdvs_ntidigits, args.clips)
        measure_prepare(folder, "nmnist-shd", write_nmnist_shd, args.clips)


def drawn(form: EventFormat, number: int, side: int) -> list[Event]:
    """Return columns, rows, polarities and times in us, which rise, of a recording."""
    rng, count = np.random.default_rng(number), COUNTS[form]
    t = np.sort(rng.integers(0, LENGTHS_US[form], count))
    x, y, p = (rng.integers(0, size, count) for size in (side, side, 2))
    return list(zip(*(array.tolist() for array in (x, y, p, t)), strict=True))


def spikes(form: EventFormat, number: int, channels: int) -> Spikes:
    """Return times in s, which rise, and channels of an utterance."""
    events = drawn(form, number, channels)
    return [t / 1e6 for _, _, _, t in events], [x for x, _, _, _ in events]


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    """Write a zip with compressed members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def write_mnistdvs_ntidigits(folder: Path, clips: int) -> None:
    """Write files as the publishers of MNIST-DVS and N-TIDIGITS18 do; two clips share a sound."""
    for digit in range(10):
        start = f"grabbed_data{digit}/scale4/mnist_{digit}_scale04_"
        members = {
            f"{start}{i:04d}.aedat": aedat_bytes(drawn("aedat2", 10 * i + digit, 128))
            for i in range(1, clips // 10 + 1)
        }
        write_zip(folder / f"grabbed_data{digit}.zip", members)
    train, test = (
        {
            f"man-{chr(97 + i % SPEAKERS)}{part}-{i}-{'z123456789'[i % 10]}": spikes(
                "n-tidigits", i, 64
            )
            for i in range(clips // 4)
        }
        for part in ("r", "e")
    )
    write_ntidigits(folder / "n-tidigits.hdf5", train, test)


def write_nmnist_shd(folder: Path, clips: int) -> None:
    """Write files as the publishers of N-MNIST and SHD do."""
    numbers = range(clips // 2)
    for part in ("train", "test"):
        members = {
            f"{part.title()}/{i % 10}/{i:05d}.bin": nmnist_bytes(drawn("n-mnist", i, 34))
            for i in numbers
        }
        write_zip(folder / f"{part.title()}.zip", members)
        labels, speakers = [i % 20 for i in numbers], [i % SPEAKERS for i in numbers]
        utterances = [spikes("shd", i, 700) for i in numbers]
        write_shd(folder / f"shd_{part}.h5", utterances, labels, speakers)


def measure_frames(rounds: int, *, repeats: int = 100) -> None:
    """Compare the way of a recording through a shard to frames with numpy reading its bytes."""
    for form, parse, data in (
        ("AEDAT 2.0", parse_aedat, aedat_bytes(drawn("aedat2", 1, 128))),
        ("N-MNIST", parse_nmnist, nmnist_bytes(drawn("n-mnist", 1, 34))),
    ):
        events = parse(data)
        member, count = event_npz(events), len(events.t)
        ways: dict[str, Callable[[], Any]] = {
            "numpy, from shard": partial(load_arrays, member),
            "to shard": lambda parse=parse, data=data: event_npz(parse(data)),
            "from shard to frames": lambda member=member: event_row(
                read_event_npz(member), SETTINGS
            ),
        }
        print(f"{form}, {count:,} events, {len(member):,} bytes in a shard")
        costs = measure({name: partial(repeat, way, repeats) for name, way in ways.items()}, rounds)
        for name, cost in costs.items():
            print_rates(f"  {name}", cost, count * repeats, "events")


def load_arrays(member: bytes) -> list[Any]:
    """Read all arrays of a recording in a shard with plain numpy."""
    with np.load(BytesIO(member)) as arrays:
        return [arrays[name] for name in arrays.files]


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
        stderr=subprocess.DEVNULL,
    )
    seconds, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    table = (place / "data" / name).rglob("clips.csv")
    return len(next(table).read_text().splitlines()) - 1, seconds, cpu


if __name__ == "__main__":
    main()
