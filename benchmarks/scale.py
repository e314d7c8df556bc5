"""Measures how time, memory and files of all commands grow with the number of clips.

Run ``python -m benchmarks.scale`` in the project's folder, with the ``dev`` extra installed, on
Linux. For each size, the benchmark makes up a data set (``benchmarks/scale_data.py``), runs the
commands in processes of their own, writes the figures into ``OUT/SIZE.json``, and removes the
data. Figures that are there are not measured again, so a benchmark that was ended goes on. With
``--small-audio`` the audio images are 16 px wide, so that 250,000 clips fit a small disk.

``--simulate`` leaves out the media: files of one byte in place of downloads, ready-made members in
place of decoded clips, rows of zeros in place of computed rows. The engine, the table, the index,
the shards and the layout of the caches are the real ones (``benchmarks/scale_simulation.py``).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from benchmarks.measuring import print_machine
from benchmarks.scale_costs import Cost, FailedError, run
from benchmarks.scale_data import NAME, table_rows, write_files, write_table
from benchmarks.scale_report import TASKS, print_ends, print_fits, print_table, print_tasks

SIZES = (1000, 16000, 64000, 250000)
#: Audio images as small as possible, so that a cache of many clips fits a small disk.
SMALL_AUDIO = ("--set", "audio.size=16")
#: A network as small as possible: what grows with clips is around the network.
SMALL_NETWORK = ("model.channels=16", "model.steps=2", "data.size=32")


class Task(NamedTuple):
    """A command to measure.

    Attributes:
        name: what the command is called in the table.
        words: the words of the command.
        until: the command is killed as soon as this is true; None waits for its end.
    """

    name: str
    words: list[str]
    until: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Place:
    """The folder of the data set of one size.

    Attributes:
        folder: the folder.
        clips: number of clips.
        simulated: whether there are no media.
        small_audio: whether the audio images are small.
        fetched: whether all files are there already, which a simulation alone can do.
    """

    folder: Path
    clips: int
    simulated: bool
    small_audio: bool
    fetched: bool

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the commands."""
        return {
            **os.environ,
            USER_FOLDER_VARIABLE: str(self.folder / "datasets"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
        }

    def make(self) -> None:
        """Write the table, and the files of the clips."""
        write_table(self.folder / "datasets", table_rows(0, self.clips))
        (self.folder / "source").mkdir(exist_ok=True)
        if not self.simulated:
            write_files(self.folder / "source", 0, self.clips)
        if self.fetched:
            words = "import sys, pathlib; from benchmarks.scale_simulation import write_fetched; "
            words += "write_fetched(pathlib.Path(sys.argv[1]))"
            command = [sys.executable, "-c", words, str(self.folder / "data")]
            subprocess.run(command, env=self.environment, check=True)

    def tasks(self) -> list[Task]:
        """Return the commands in the order in which they run."""
        module = "benchmarks.scale_simulation" if self.simulated else "avsnn"
        avsnn = [sys.executable, "-m", module]
        root = ["--root", str(self.folder / "data")]
        prepare = [*avsnn, "prepare", NAME, *root]
        if not self.simulated:
            prepare += ["--source", str(self.folder / "source")]
        if self.small_audio:
            prepare += SMALL_AUDIO
        reader = [sys.executable, "-m", "benchmarks.scale_loader", root[1]]
        return [
            Task("prepare", prepare),
            Task("no-op", prepare),
            Task("--dry-run", [*prepare, "--dry-run"]),
            Task("verify", [*avsnn, "verify", NAME, *root]),
            Task("status", [*avsnn, "status", *root, "--runs", str(self.folder / "runs")]),
            Task("datasets check", [*avsnn, "datasets", "check", NAME, *root]),
            self._train(avsnn, root),
            *(
                Task(
                    f"batches from {read}, {workers} workers",
                    [*reader, "--read", read, "--workers", str(workers)],
                )
                for read in ("cache", "shards")
                for workers in (0, 4)
            ),
            *([] if self.simulated else [self._hand_out_tasks(root[1])]),
        ]

    def _hand_out_tasks(self, root: str) -> Task:
        """Return the measuring of tasks, which takes the tasks of real stages."""
        return Task(TASKS, [sys.executable, "-m", "benchmarks.scale_tasks", root])

    def _train(self, avsnn: list[str], root: list[str]) -> Task:
        """Return a training that ends when its first step is saved."""
        folder = self.folder / "run"
        settings = [*SMALL_NETWORK, "epochs=1", "batch_size=64", "selection=last"]
        words = [*avsnn, "train", NAME, *root, "--run", str(folder), "--device", "cpu"]
        words += ["--save-every", "1", *(w for setting in settings for w in ("--set", setting))]
        points = folder / "checkpoints"
        return Task("train, first step", words, lambda: points.is_dir() and any(points.iterdir()))


def measure(place: Place, results: Path) -> None:
    """Measure every command that has no figures yet."""
    facts: dict[str, Any] = {"clips": place.clips, "costs": {}}
    if results.exists():
        facts = json.loads(results.read_text())
    missing = [task for task in place.tasks() if task.name not in facts["costs"]]
    if missing and "prepare" in facts["costs"] and not (place.folder / "done").exists():
        raise SystemExit(f"{place.folder} is gone; remove {results} to measure all again.")
    for task in missing:
        if task.name == "prepare":
            # A prepare that was ended has done a part of the work.
            shutil.rmtree(place.folder, ignore_errors=True)
            place.folder.mkdir(parents=True)
            place.make()
        try:
            cost = run(
                task.words,
                environment=place.environment,
                log=place.folder / "log.txt",
                until=task.until,
            )
        except FailedError as error:
            print(f"{place.clips:,} clips, {task.name}: {error}", flush=True)
            if task.name == "prepare":
                return
            continue
        facts["costs"][task.name] = _facts_of(cost)
        if task.name == "prepare":
            (place.folder / "done").touch()
            facts |= count_files(place.folder / "data")
        print_progress(place, task, cost)
        results.write_text(json.dumps(facts, indent=1))


def _facts_of(cost: Cost) -> dict[str, Any]:
    facts = asdict(cost)
    output = facts.pop("output")
    # Only the reader of batches prints figures of its own.
    return facts | (json.loads(output) if output.startswith("{") else {})


def count_files(folder: Path) -> dict[str, int]:
    """Return the number of files below a folder, and their bytes on the disk."""
    files = disk_bytes = 0
    for name, _, names in os.walk(folder):
        for file in names:
            stat = (Path(name) / file).lstat()
            files += 1
            disk_bytes += stat.st_blocks * 512
    return {"files": files, "disk_bytes": disk_bytes}


def print_progress(place: Place, task: Task, cost: Cost) -> None:
    """Print one line about a command that was measured."""
    print(
        f"{place.clips:>9,} clips, {task.name}: {cost.wall:.1f} s, {cost.cpu:.1f} s of processor "
        f"time, {cost.main_mb:,.0f} MB, largest worker {cost.worker_mb:,.0f} MB",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="CLIPS")
    parser.add_argument("--out", type=Path, default=Path("scale"), help="folder of the figures")
    parser.add_argument("--small-audio", action="store_true")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument(
        "--fetched", action="store_true", help="with --simulate: leave out the time of fetch"
    )
    parser.add_argument("--keep", action="store_true", help="keep the data of every size")
    args = parser.parse_args()
    print_machine("numpy", "torch", "zarr", "distributed")
    args.out.mkdir(parents=True, exist_ok=True)
    kind = "simulated" if args.simulate else "real"
    if args.fetched:
        kind += "-fetched"
    if args.small_audio or args.simulate:
        kind += "-small-audio"
    paths = []
    for clips in args.sizes:
        place = Place(
            (args.out / f"{kind}-{clips}").absolute(),
            clips,
            simulated=args.simulate,
            small_audio=args.small_audio or args.simulate,
            fetched=args.simulate and args.fetched,
        )
        results = args.out / f"{kind}-{clips}.json"
        measure(place, results)
        if not args.keep:
            shutil.rmtree(place.folder, ignore_errors=True)
        paths.append(results)
    measured = [json.loads(path.read_text()) for path in paths if path.exists()]
    print_table(measured)
    print_tasks(measured)
    if len(measured) > 1:
        print_fits(measured)
        print_ends(measured)


if __name__ == "__main__":
    main()
