"""Kills commands at random moments, again and again, and compares the files afterwards.

``python -m tests.chaos --kills 100 --seed 1`` is the long version of tests/e2e/test_chaos.py. The
commands ``prepare``, ``train``, ``evaluate`` and ``reproduce`` run in sequence on a tiny data set.
At a random moment of a command, SIGKILL ends the command itself or one of its worker processes. The
command is started again until the command ends by itself; then the next command follows. At the
end, the files must be equal to the files of a sequence without kills.
"""

import argparse
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil

from tests.conftest import hashes
from tests.e2e.test_kill import curve

PREPARE = ["prepare", "demo", "--set", "extract.clips_per_shard=8"]
TINY = ["--set", "model.channels=16", "--set", "data.size=32", "--set", "batch_size=8"]
TRAIN = ["train", "demo", "--run", "runs/one", "--resume", "--save-every", "1", "--device", "cpu"]
TRAIN += [*TINY, "--set", "epochs=2"]
EVALUATE = ["evaluate", "runs/one", "--device", "cpu"]
REPRODUCE = ["reproduce", "snr", "--dataset", "demo", "--seeds", "1", "--device", "cpu"]
REPRODUCE += [*TINY, "--set", "epochs=1", "--save-every", "1"]


class Running(Protocol):
    """A command that was started."""

    pid: int

    def ended(self, *, within: float) -> bool:
        """Wait up to ``within`` s for the end; a command that prints may return sooner."""

    def wait(self) -> int:
        """Return the exit code."""


class Installed:
    """The installed command, started in a session of its own."""

    def __init__(self, avsnn: str, words: list[str], cwd: Path) -> None:
        self._process = subprocess.Popen(
            [avsnn, *words],
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.said = b""

    def ended(self, *, within: float) -> bool:
        assert self._process.stderr is not None
        # The pipe ends when every process that holds the pipe has ended, workers included.
        ready, _, _ = select.select([self._process.stderr], [], [], within)
        read = os.read(self._process.stderr.fileno(), 65536) if ready else b""
        self.said += read
        return bool(ready) and not read

    def wait(self) -> int:
        while not self.ended(within=60):
            pass
        return self._process.wait()


Start = Callable[[list[str], Path], Running]


def kill_one(pid: int, target: str, rng: random.Random) -> bool:
    """Kill the command or one of its descendants; return False if no such process is alive."""
    try:
        victims = [psutil.Process(pid)]
        if target == "worker":
            victims = victims[0].children(recursive=True)
        rng.choice(victims).send_signal(signal.SIGKILL)
    except (psutil.NoSuchProcess, IndexError):
        return False
    return True


def outcome(folder: Path) -> dict[str, object]:
    """Return everything that must be equal after a sequence of commands, with or without kills."""
    runs = folder / "runs"
    same: dict[str, object] = {**hashes(folder / "data")} if (folder / "data").exists() else {}
    for run in sorted(runs.glob("*/config.yaml")):
        same[f"curve of {run.parent.name}"] = curve(run.parent)
    for pattern in ("*/checkpoints/best.*", "*/checkpoints/last.*", "*/report/*", "tables/*"):
        for path in runs.glob(pattern):
            # The page holds the time at which the run began.
            if path.name != "report.html":
                same[str(path.relative_to(folder))] = path.read_bytes()
    same["unfinished files"] = [str(path) for path in runs.rglob("*.partial")]
    return same


def run_once(start: Start, words: list[str], folder: Path) -> float:
    """Run a command to its end without a kill; return how long it took in s."""
    began = time.monotonic()
    process = start(words, folder)
    code = process.wait()
    assert code == 0, f"{words[0]} failed without a kill:\n{what_it_said(process)}"
    return time.monotonic() - began


def what_it_said(process: Running) -> str:
    return getattr(process, "said", b"").decode(errors="replace")


def chaos(
    start: Start, folder: Path, *, kills: int, seed: int, commands: list[list[str]]
) -> Counter[str]:
    """Run the commands in sequence, again and again, with ``kills`` kills in total.

    Args:
        start: starts a command in a folder.
        folder: an empty folder, or a folder that does not exist.
        kills: number of kills.
        seed: seed of the moments of the kills.
        commands: the words of each command.

    Returns:
        the number of kills of a command (``command``, and the name of the command) and of a worker
        (``worker``), and the number of finished sequences that were compared (``trees``).

    Raises:
        AssertionError: a command failed without a kill, or the files differ.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    seconds = [run_once(start, words, folder) for words in commands]
    expected = outcome(folder)
    assert not expected["unfinished files"]
    counts: Counter[str] = Counter()
    while counts["command"] + counts["worker"] < kills:
        for name in ("data", "runs"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for words, duration in zip(commands, seconds, strict=True):
            while True:
                process = start(words, folder)
                has_workers = "--workers" in words and words[words.index("--workers") + 1] != "0"
                targets = ("command", "worker") if has_workers else ("command",)
                target = min(targets, key=counts.__getitem__)
                deadline, was_killed = time.monotonic() + rng.uniform(0, duration), False
                while not (ended := process.ended(within=max(0, deadline - time.monotonic()))):
                    if time.monotonic() >= deadline:
                        break
                if not ended and counts["command"] + counts["worker"] < kills:
                    was_killed = kill_one(process.pid, target, rng)
                code = process.wait()
                if was_killed:
                    counts[target] += 1
                    counts[words[0]] += 1
                if code == 0:
                    break
                said = what_it_said(process)
                assert was_killed, f"seed {seed}: {words[0]} failed without a kill:\n{said}"
        found = outcome(folder)
        differing = [key for key in expected | found if expected.get(key) != found.get(key)]
        assert not differing, f"seed {seed}: {differing} differ after {counts}"
        counts["trees"] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=72)
    parser.add_argument("--workers", default="2")
    args = parser.parse_args()
    avsnn = os.fspath(Path(sys.executable).with_name("avsnn"))
    commands = [
        [*PREPARE, "--limit", str(args.limit), "--workers", args.workers],
        [*TRAIN, "--workers", "1"],
        EVALUATE,
        REPRODUCE,
    ]
    with tempfile.TemporaryDirectory() as folder:
        counts = chaos(
            lambda words, cwd: Installed(avsnn, words, cwd),
            Path(folder),
            kills=args.kills,
            seed=args.seed,
            commands=commands,
        )
    struck = ", ".join(f"{counts[words[0]]} in {words[0]}" for words in commands)
    print(
        f"seed {args.seed}: {counts['command']} kills of a command, {counts['worker']} of a worker "
        f"({struck}); {counts['trees']} finished sequences, all equal"
    )


if __name__ == "__main__":
    main()
