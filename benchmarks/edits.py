"""Measures what a change of the table of a prepared data set costs.

``python benchmarks/edits.py [--clips 16000]`` writes that many small clips (an image of 100 bytes,
0.3 s of sound), prepares the clips, which takes minutes, and then changes the table again and
again. For every change, the benchmark counts the clips that were decoded, the shards that are the
same files as before, the bytes that were written anew, and the processor time.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import yaml

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.datasets_manifest.clips import COLUMNS

CLASSES = [f"class {number}" for number in range(10)]

Row = dict[str, str]


def write_clips(folder: Path, count: int) -> list[Row]:
    """Write the files of the clips, all different, and return the rows of the table."""
    rng = np.random.default_rng(0)
    rows = []
    for kind in ("audio", "image"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        key = f"clip-{number:06d}"
        pixels = np.kron(rng.integers(0, 255, (4, 4, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        cv2.imwrite(str(folder / "image" / f"{key}.png"), pixels)
        with wave.open(str(folder / "audio" / f"{key}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(rng.integers(-9000, 9000, 2400, np.int16).tobytes())
        media = [f"audio/{key}.wav", "", "", f"image/{key}.png", "", ""]
        part = "test" if number % 5 == 0 else "train"
        values = [key, str(number % 10), f"s{number % 40}", *media, part]
        rows.append(dict(zip((*COLUMNS, "split"), values, strict=True)))
    return rows


def write_table(folder: Path, rows: list[Row]) -> None:
    """Write the YAML and the table of the data set."""
    facts = {
        "name": "many",
        "title": "Many small clips",
        "description": "made up",
        "homepage": "https://example.org",
        "licence": "none",
        "visual": "image",
        "group": "speaker",
        "classes": CLASSES,
        "table": "many.csv",
        "sources": [{"prefix": "", "url": "https://example.org/"}],
        "default_split": "published",
        "splits": {"published": {"column": "split", "val_fraction": 0.0}},
    }
    (folder / "many.yaml").write_text(yaml.safe_dump(facts))
    with (folder / "many.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, "split"])
        writer.writeheader()
        writer.writerows(rows)


def files_of(root: Path) -> dict[str, os.stat_result]:
    """Return the shards and the pieces of the caches that training reads."""
    prepared = json.loads((root / "prepared.json").read_text())
    return {
        f"{kind}/{path.relative_to(root / prepared[kind])}": path.stat()
        for kind in ("shards", "frames", "audio")
        for path in (root / prepared[kind]).rglob("*")
        if path.is_file()
    }


def relabel(rows: list[Row]) -> None:
    """Correct the label of one clip."""
    rows[7]["label"] = str((int(rows[7]["label"]) + 1) % 10)


def move(rows: list[Row]) -> None:
    """Move one clip to another part."""
    rows[7]["split"] = "test" if rows[7]["split"] == "train" else "train"


def remove(rows: list[Row]) -> None:
    """Remove one clip."""
    rows.pop(11)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=16000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "datasets").mkdir()
        all_rows = write_clips(folder / "source", args.clips + 100)
        rows, appended = all_rows[: args.clips], all_rows[args.clips :]
        command = [str(Path(sys.executable).with_name("avsnn")), "prepare", "many"]
        command += ["--source", "source"]
        environment = {**os.environ, USER_FOLDER_VARIABLE: str(folder / "datasets")}

        def run(title: str, change: Callable[[list[Row]], object]) -> None:
            before = files_of(folder / "data/many") if (folder / "data/many").exists() else {}
            change(rows)
            write_table(folder / "datasets", rows)
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            began = time.perf_counter()
            subprocess.run(
                command,
                cwd=folder,
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            seconds = time.perf_counter() - began
            now = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
            after = files_of(folder / "data/many")
            new = {n for n, s in after.items() if n not in before or before[n].st_ino != s.st_ino}
            tars = [n for n in after if n.endswith(".tar")]
            print(
                f"{title:<28} {seconds:6.1f} s, {cpu:6.1f} s of processor time; "
                f"{sum(n not in new for n in tars):,} of {len(tars):,} shards are the same files; "
                f"{sum(after[n].st_size for n in new) / 1e6:,.1f} of "
                f"{sum(s.st_size for s in after.values()) / 1e6:,.1f} MB written anew",
                flush=True,
            )

        run(f"prepare {args.clips:,} clips", lambda rows: None)
        run("nothing changed", lambda rows: None)
        run("label of one clip", relabel)
        run("one clip to another part", move)
        run("one clip removed", remove)
        run("one clip appended", lambda rows: rows.extend(appended[:1]))
        run("99 clips appended", lambda rows: rows.extend(appended[1:]))


if __name__ == "__main__":
    main()
