"""Measures what a change of the table or of a setting of a prepared data set costs.

``python -m benchmarks.edits [--clips 16000]`` makes up that many small clips
(``benchmarks/scale_data.py``), prepares the clips, which takes minutes, and then makes one change
after the other. For every change, the benchmark prints the processor time of the command and its
workers, the peak memory of the command's own process, the units that ran in each stage, the files
of shards and caches that are the same files as before, and the bytes that were written anew.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from benchmarks.measuring import print_machine
from benchmarks.scale_costs import run
from benchmarks.scale_data import CLASSES, NAME, Row, table_rows, write_files, write_table
from benchmarks.scale_report import print_row, short

#: Number of clips that the largest edit appends.
APPENDED = 100
STAGES = ("fetch", "index", "extract", "frames", "audio")


def files_of(root: Path) -> dict[str, os.stat_result]:
    """Return the shards and the pieces of the caches that training reads."""
    if not root.exists():
        return {}
    prepared = json.loads((root / "prepared.json").read_text())
    return {
        f"{kind}/{path.relative_to(root / prepared[kind])}": path.stat()
        for kind in ("shards", "frames", "audio")
        for path in (root / prepared[kind]).rglob("*")
        if path.is_file()
    }


def units_that_ran(output: str) -> list[str]:
    """Return the number of units that ran in each stage, from what `prepare` printed."""
    lines = (line.split() for line in output.splitlines())
    # Stage, inputs, written, skipped, failed, done now.
    done = {words[0]: words[5] for words in lines if len(words) > 6 and words[0] in STAGES}
    return [done.get(stage, "") for stage in STAGES]


def relabel(rows: list[Row]) -> None:
    """Correct the label of one clip."""
    rows[7]["label"] = str((int(rows[7]["label"]) + 1) % CLASSES)


def move(rows: list[Row]) -> None:
    """Move one clip to another part."""
    rows[7]["split"] = "test" if rows[7]["split"] == "train" else "train"


def remove(rows: list[Row]) -> None:
    """Remove one clip."""
    rows.pop(11)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=16000)
    args = parser.parse_args()
    print_machine("numpy", "zarr", "distributed")
    print(f"{args.clips:,} clips\n")
    titles = ["CPU s", "MB", *(f"{stage}, units" for stage in STAGES), "files the same", "MB anew"]
    print_row("change", *titles)
    print_row("---", *("---:" for _ in titles))
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as name:
        folder = Path(name)
        write_files(folder / "source", 0, args.clips + APPENDED)
        rows = list(table_rows(0, args.clips))
        appended = list(table_rows(args.clips, APPENDED))

        def prepare(title: str, change: Callable[[list[Row]], object], *settings: str) -> None:
            before = files_of(folder / "data" / NAME)
            change(rows)
            write_table(folder / "datasets", rows)
            cost = run(
                [
                    *(sys.executable, "-m", "avsnn", "prepare", NAME, "--root"),
                    *(str(folder / "data"), "--source", str(folder / "source")),
                    *(word for setting in settings for word in ("--set", setting)),
                ],
                environment={
                    **os.environ,
                    USER_FOLDER_VARIABLE: str(folder / "datasets"),
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    "COLUMNS": "120",
                },
                log=folder / "log.txt",
            )
            printed = cost.output + (folder / "log.txt").read_text()
            after = files_of(folder / "data" / NAME)
            new = {n for n, s in after.items() if n not in before or before[n].st_ino != s.st_ino}
            print_row(
                title,
                short(cost.cpu),
                f"{cost.main_mb:,.0f}",
                *units_that_ran(printed),
                f"{len(after) - len(new):,} of {len(after):,}",
                f"{sum(after[n].st_size for n in new) / 1e6:,.1f} of "
                f"{sum(s.st_size for s in after.values()) / 1e6:,.1f}",
            )
            sys.stdout.flush()

        prepare("first prepare", lambda rows: None)
        prepare("nothing", lambda rows: None)
        prepare("label of one clip", relabel)
        prepare("one clip to another part", move)
        prepare("one clip removed", remove)
        prepare("one clip appended", lambda rows: rows.extend(appended[:1]))
        prepare("99 clips appended", lambda rows: rows.extend(appended[1:]))
        prepare("`audio.hop`", lambda rows: None, "audio.hop=300")


if __name__ == "__main__":
    main()
