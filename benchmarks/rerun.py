"""Measures how long ``avsnn prepare`` takes to find nothing to do, for as many clips as CREMA-D.

``python benchmarks/rerun.py [--clips 7442]`` generates that many demo clips in a temporary folder
and prepares the clips, which takes minutes. Then the benchmark runs the same command again and
measures its time.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from avsnn.datasets_manifest import load
from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.datasets_manifest.clips import COLUMNS


def write_manifest(folder: Path, clips: int) -> None:
    """Write the manifest of a generated data set like the demo, with more clips."""
    demo = load("demo")
    facts = demo.model_dump(mode="json", exclude_defaults=True)
    facts |= {"name": "many", "table": "many.csv"}
    (folder / "many.yaml").write_text(yaml.safe_dump(facts))
    with (folder / "many.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*COLUMNS, "split"])
        for number in range(clips):
            label = number % len(demo.classes)
            key = f"{demo.classes[label]}-{number:05d}"
            part = "test" if number % 10 == 0 else "train"
            media = [f"audio/{key}.wav", "", "", f"video/{key}.mp4", "", ""]
            rows.writerow([key, label, "", *media, part])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=7442)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    command = [str(Path(sys.executable).with_name("avsnn")), "prepare", "many"]
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder), args.clips)
        environment = {**os.environ, USER_FOLDER_VARIABLE: folder}

        def run() -> float:
            began = time.perf_counter()
            subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
            return time.perf_counter() - began

        print(f"{args.clips:,} clips prepared in {run():.0f} s, {os.cpu_count()} cores")
        times = [run() for _ in range(args.runs)]
        print(
            f"nothing to do: median {statistics.median(times):.2f} s, "
            f"{min(times):.2f} to {max(times):.2f} s over {args.runs} runs"
        )


if __name__ == "__main__":
    main()
