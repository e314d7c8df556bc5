"""Edits a data set at random, prepares with kills in between, and compares with a fresh prepare.

``python -m tests.walks --walks 20 --seed 1`` is the long version of tests/e2e/test_walks.py. A walk
is a sequence of edits of the table, the splits and the classes, with other limits and settings.
After each edit, ``avsnn prepare`` is killed at a random line of its log, or runs to its end. When
a prepare has ended, its files must equal the files of a prepare that starts from nothing, and
``avsnn verify`` must find no damage.
"""

import argparse
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path

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


def append_clips(own: OwnDataset) -> None:
    own.rows += own.reserve[:2]
    own.reserve = own.reserve[2:]


def remove_clip(own: OwnDataset) -> None:
    own.reserve.append(own.rows.pop(len(own.rows) // 2))


def walk(warm: Warm, folder: Path, *, steps: int, seed: int) -> Counter[str]:
    """Take one walk.

    Returns:
        the number of prepares that were killed (``killed``) and of prepares that ended and were
        compared with a fresh one (``compared``).

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
    own.write()
    words = ["prepare", "own", "--source", str(source), *ALONE]
    counts: Counter[str] = Counter()
    for step in range(steps):
        edit = rng.choice([*EDITS, append_clips, remove_clip])
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
        shutil.rmtree(fresh)
        counts["compared"] += 1
    return counts


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
            counts += walk(warm, Path(folder) / "walk", steps=args.steps, seed=seed)
    warm.close()
    print(
        f"seeds {args.seed} to {args.seed + args.walks - 1}: {counts['killed']} prepares killed, "
        f"{counts['compared']} prepares equal to a fresh one"
    )


if __name__ == "__main__":
    main()
