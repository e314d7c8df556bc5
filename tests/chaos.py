"""Kills ``avsnn prepare`` at random moments, again and again, and compares what comes out.

``python -m tests.chaos --kills 100 --seed 1`` is the long version of tests/e2e/test_chaos.py. A run
is struck at a random moment: the command itself, or one of its worker processes, by SIGKILL. It is
started again until a run ends by itself; then all files must be those of a run that nobody struck.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.conftest import hashes

WORDS = ["prepare", "demo", "--set", "extract.clips_per_shard=8"]


def command(avsnn: str, *words: str) -> list[str]:
    return [avsnn, *WORDS, *words]


def strike(process: subprocess.Popen[bytes], target: str, dice: random.Random) -> bool:
    """Kills the command, or one of its descendants; False where there is nothing to kill."""
    try:
        victims = [psutil.Process(process.pid)]
        if target == "worker":
            victims = victims[0].children(recursive=True)
        dice.choice(victims).send_signal(signal.SIGKILL)
    except (psutil.NoSuchProcess, IndexError):
        return False
    return True


def chaos(avsnn: str, folder: Path, *, kills: int, seed: int, words: list[str]) -> Counter[str]:
    """Strikes ``kills`` times; returns how often what was struck, and how many trees were compared.

    Raises:
        AssertionError: a run ended badly on its own, or the files are not those they should be.
    """
    dice = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    subprocess.run(command(avsnn, *words), cwd=folder, check=True, capture_output=True)
    seconds = time.monotonic() - began
    due = hashes(folder / "data")
    done: Counter[str] = Counter()
    while done["command"] + done["worker"] < kills:
        shutil.rmtree(folder / "data")
        while True:
            process = subprocess.Popen(
                command(avsnn, *words),
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            target = min(("command", "worker"), key=done.__getitem__)
            struck = False
            try:
                process.wait(timeout=dice.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                struck = strike(process, target, dice)
            _, said = process.communicate()
            if struck:
                done[target] += 1
            if process.returncode == 0:
                break
            assert struck, f"seed {seed}: a run that nobody struck failed:\n{said.decode()}"
        assert hashes(folder / "data") == due, f"seed {seed}: other files after {done}"
        done["trees"] += 1
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=72)
    parser.add_argument("--workers", default="2")
    chosen = parser.parse_args()
    words = ["--limit", str(chosen.limit), "--workers", chosen.workers]
    beside = Path(sys.executable).with_name("avsnn")
    with tempfile.TemporaryDirectory() as folder:
        done = chaos(
            os.fspath(beside), Path(folder), kills=chosen.kills, seed=chosen.seed, words=words
        )
    print(
        f"seed {chosen.seed}: {done['command']} kills of the command, {done['worker']} of a "
        f"worker, {done['trees']} finished trees, all equal to the byte"
    )


if __name__ == "__main__":
    main()
