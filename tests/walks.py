"""Edits a data set at random, prepares with kills in between, and compares with a fresh prepare.

``python -m tests.walks --walks 20 --seed 1`` is the long version of tests/e2e/test_walks.py. A walk
is a sequence of edits of the table, the splits and the classes, with other limits and settings.
After each edit, ``avsnn prepare`` is killed at a random line of its log, or runs to its end. When
a prepare has ended, its files must equal the files of a prepare that starts from nothing,
``avsnn verify`` must find no damage, and no folder of earlier clips may be left. Then ``train`` and
``evaluate`` of a run that may be older than the edits must refuse in one sentence, or give the
numbers of a new run on new data.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from tests.conftest import ALONE
from tests.own_dataset import EDITS, OwnDataset, current_files, prepared_index
from tests.warm import Warm

SETTINGS: list[list[str]] = [
    [],
    ["--limit", "20"],
    ["--set", "audio.size=64"],
    ["--set", "extract.clips_per_shard=8"],
    ["--set", "frames.shorter_side=64"],
]

TRAIN = ["train", "own", "--preset", "demo", "--device", "cpu", "--workers", "0"]
TRAIN += ["--set", "model.channels=16", "--set", "data.size=32", "--set", "epochs=1"]
TRAIN += ["--set", "batch_size=8", "--set", "selection=last"]

REPRODUCE = ["reproduce", "attention", "--dataset", "own", "--device", "cpu", "--seeds", "1"]
REPRODUCE += TRAIN[TRAIN.index("--set") :]


def append_clips(own: OwnDataset) -> None:
    own.rows += own.reserve[:2]
    own.reserve = own.reserve[2:]


def remove_clip(own: OwnDataset) -> None:
    own.reserve.append(own.rows.pop(len(own.rows) // 2))


def correct_a_file(own: OwnDataset) -> None:
    assert own.source is not None
    sounds = [own.source / row["audio_path"] for row in own.rows]
    shutil.copyfile(sounds[1], sounds[0])


def walk(
    warm: Warm, folder: Path, *, steps: int, seed: int, reproduce: bool = False
) -> Counter[str]:
    """Take one walk; with ``reproduce``, compare a reproduced table too, which takes longer.

    Returns:
        the number of prepares that were killed (``killed``), of prepares that ended and were
        compared with a fresh one (``compared``), and of runs that were refused (``refused``) or
        gave the numbers of a new run (``same numbers``).

    Raises:
        AssertionError: a prepare failed without a kill, or left other files than a fresh one.
    """
    rng = random.Random(seed)
    os.environ.pop(USER_FOLDER_VARIABLE, None)
    datasets = folder / "datasets"
    datasets.mkdir(parents=True)
    own = OwnDataset(datasets)
    os.environ[USER_FOLDER_VARIABLE] = str(datasets)
    # The source holds the files of all clips, also of clips that a later edit appends.
    own.rows, reserve = [*own.rows, *own.reserve], own.reserve
    own.write()
    source = folder / "source"
    made = warm.run(["prepare", "own", "--root", "made", *ALONE], folder)
    assert made.returncode == 0, made.stderr
    shutil.copytree(folder / "made" / "own" / "raw", source)
    own.rows = own.rows[: -len(reserve)]
    own.source = source
    own.write()
    words = ["prepare", "own", "--source", str(source), *ALONE]
    counts: Counter[str] = Counter()
    for step in range(steps):
        edit = rng.choice([*EDITS, append_clips, remove_clip, correct_a_file])
        edit(own)
        own.write()
        settings = rng.choice(SETTINGS)
        about = f"seed {seed}, step {step}, {edit.__name__}, {settings}"
        if rng.random() < 0.5:
            process = warm.start([*words, *settings], folder)
            for _ in range(rng.randrange(12)):
                process.stderr.readline()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            counts["killed"] += 1
            continue
        done = warm.run([*words, *settings], folder)
        assert done.returncode == 0, f"{about}: {done.stderr}"
        fresh = folder / f"fresh-{step}"
        done = warm.run([*words, *settings, "--root", str(fresh)], folder)
        assert done.returncode == 0, f"{about}: {done.stderr}"
        ours, theirs = folder / "data" / "own", fresh / "own"
        assert prepared_index(ours) == prepared_index(theirs), about
        assert current_files(ours) == current_files(theirs), about
        verified = warm.run(["verify", "own"], folder)
        assert verified.returncode == 0, f"{about}: {verified.stdout}"
        again = warm.run([*words, *settings], folder)
        assert "nothing to do" in again.stdout, about
        assert_no_earlier_generation(ours)
        counts[check_numbers(warm, folder, fresh, about)] += 1
        if reproduce:
            counts["tables"] += check_table(warm, folder, fresh, about)
        if rng.random() < 0.5:
            shutil.rmtree(folder / "run", ignore_errors=True)
        shutil.rmtree(fresh)
        counts["compared"] += 1
    return counts


def assert_no_earlier_generation(folder: Path) -> None:
    """Check that the whole generation has replaced all others of its settings and its limit."""
    prepared = json.loads((folder / "prepared.json").read_text())
    for kind in ("index", "shards", "frames", "audio"):
        present = folder / prepared[kind]
        settings_and_limit, _, rest = present.name.rpartition("-")
        suffix = rest[8:]
        same = list(present.parent.glob(f"{settings_and_limit}-????????{suffix}"))
        assert same == [present], same


def check_numbers(warm: Warm, folder: Path, fresh: Path, about: str) -> str:
    """Train and evaluate an older run, and compare with a new run on new data.

    Returns:
        ``refused`` or ``same numbers``.
    """
    outcomes = []
    for root, run in (("data", folder / "run"), (str(fresh), fresh / "run")):
        trained = warm.run([*TRAIN, "--root", root, "--run", str(run)], folder)
        done = trained
        if trained.returncode == 0:
            done = warm.run(["evaluate", str(run), "--root", root, "--split", "train"], folder)
        if done.returncode:
            assert done.returncode == 2, f"{about}: {done.stderr}"
            assert len(done.stderr.strip().splitlines()) == 1, f"{about}: {done.stderr}"
        outcomes.append(numbers_of(run) if done.returncode == 0 else None)
    ours, theirs = outcomes
    if ours is None:
        # Data on which nothing can be trained refuse a new run too; an older run is no stale one.
        return "refused"
    assert ours == theirs, about
    return "same numbers"


def check_table(warm: Warm, folder: Path, fresh: Path, about: str) -> bool:
    """Reproduce a table beside the runs of earlier steps and beside no runs, and compare.

    Returns:
        whether a table was made; data on which nothing can be trained make none.
    """
    tables = []
    for root, runs in (("data", folder / "runs"), (str(fresh), fresh / "runs")):
        words = [*REPRODUCE, "--root", root, "--runs", str(runs)]
        done = warm.run(words, folder)
        assert done.returncode in (0, 1, 2), f"{about}: {done.stderr}"
        assert "Traceback" not in done.stderr, f"{about}: {done.stderr}"
        found = list((runs / "tables").glob("*.json")) if done.returncode == 0 else []
        tables.append([table_numbers(path) for path in found])
    assert tables[0] == tables[1], about
    return bool(tables[0])


def table_numbers(path: Path) -> str:
    """Return what a table says, without the names of folders."""
    return re.sub(r'"[^"]*runs/[^"]*"', '""', path.read_text())


def numbers_of(run: Path) -> list[dict[str, Any]]:
    """Return the curve of a run and the numbers of its report, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    report = json.loads((run / "report" / "train.json").read_text())
    kept = [{key: line[key] for key in line if "second" not in key} for line in lines]
    return [*kept, {key: report[key] for key in ("loss", "top1", "top5", "clips")}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    warm = Warm()
    for seed in range(args.seed, args.seed + args.walks):
        with tempfile.TemporaryDirectory() as folder:
            counts += walk(warm, Path(folder) / "walk", steps=args.steps, seed=seed, reproduce=True)
    warm.close()
    print(
        f"seeds {args.seed} to {args.seed + args.walks - 1}: {counts['killed']} prepares killed, "
        f"{counts['compared']} prepares equal to a fresh one; then {counts['refused']} runs were "
        f"refused, and {counts['same numbers']} gave the numbers of a new run; "
        f"{counts['tables']} tables equal the tables of new runs"
    )


if __name__ == "__main__":
    main()
