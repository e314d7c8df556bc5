"""Kills ``avsnn prepare`` at random moments, again and again, and compares the files afterwards.

``python -m tests.chaos --kills 100 --seed 1`` is the long version of tests/e2e/test_chaos.py. At a
random moment of a run, SIGKILL ends the command itself or one of its worker processes. The command
is started again until a run ends by itself. Then all files must be equal to the files of a run
without kills.
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


def kill_one(process: subprocess.Popen[bytes], target: str, rng: random.Random) -> bool:
    """Kill the command or one of its descendants; return False if no such process is alive."""
    try:
        victims = [psutil.Process(process.pid)]
        if target == "worker":
            victims = victims[0].children(recursive=True)
        rng.choice(victims).send_signal(signal.SIGKILL)
    except (psutil.NoSuchProcess, IndexError):
        return False
    return True


def chaos(avsnn: str, folder: Path, *, kills: int, seed: int, words: list[str]) -> Counter[str]:
    """Run ``avsnn prepare`` with ``kills`` kills.

    Returns:
        the number of kills of the command (``command``) and of a worker (``worker``), and the
        number of finished folders that were compared (``trees``).

    Raises:
        AssertionError: a run failed without a kill, or the files differ.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    subprocess.run(command(avsnn, *words), cwd=folder, check=True, capture_output=True)
    seconds = time.monotonic() - began
    expected = hashes(folder / "data")
    counts: Counter[str] = Counter()
    while counts["command"] + counts["worker"] < kills:
        shutil.rmtree(folder / "data")
        while True:
            process = subprocess.Popen(
                command(avsnn, *words),
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            target = min(("command", "worker"), key=counts.__getitem__)
            was_killed = False
            try:
                process.wait(timeout=rng.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                was_killed = kill_one(process, target, rng)
            _, stderr = process.communicate()
            if was_killed:
                counts[target] += 1
            if process.returncode == 0:
                break
            assert was_killed, f"seed {seed}: a run without a kill failed:\n{stderr.decode()}"
        assert hashes(folder / "data") == expected, f"seed {seed}: the files differ after {counts}"
        counts["trees"] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=72)
    parser.add_argument("--workers", default="2")
    args = parser.parse_args()
    words = ["--limit", str(args.limit), "--workers", args.workers]
    avsnn = Path(sys.executable).with_name("avsnn")
    with tempfile.TemporaryDirectory() as folder:
        counts = chaos(
            os.fspath(avsnn), Path(folder), kills=args.kills, seed=args.seed, words=words
        )
    print(
        f"seed {args.seed}: {counts['command']} kills of the command, {counts['worker']} of a "
        f"worker, {counts['trees']} finished trees, all equal to the byte"
    )


if __name__ == "__main__":
    main()
