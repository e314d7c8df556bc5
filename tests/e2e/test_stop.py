"""Stops commands with Ctrl-C and SIGTERM, and reads what they say is saved."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import ALONE, SMALL_SHARDS, Command
from tests.pipeline.conftest import cache_paths
from tests.warm import Started, Warm

# The first epoch of such a training lasts for seconds.
SLOW = ["--set", "model.channels=64", "--set", "batch_size=2", "--set", "data.size=128"]
SLOW += ["--set", "epochs=2", "--device", "cpu"]


def stop_when_it_says(process: Started, words: str, stop: signal.Signals) -> str:
    """Send a signal when a line of the log contains some words; return what is said after it."""
    for line in process.stderr:
        if words in line:
            os.kill(process.pid, stop)
            break
    return process.stderr.read()


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_training_that_is_stopped_says_what_is_saved(
    avsnn: Command, warm: Warm, small_demo: Path, tmp_path: Path, stop: signal.Signals, code: int
) -> None:
    words = ["train", "demo", "--root", str(small_demo), "--run", "r", *SLOW]
    said = stop_when_it_says(process := warm.start(words, tmp_path), "parameters on", stop)
    assert process.wait() == code, said
    assert "Traceback" not in said
    saved = list((tmp_path / "r").glob("checkpoints/resume-*"))
    if stop == signal.SIGINT:
        assert not saved
        assert "avsnn: interrupted; nothing of r is saved yet." in said
    else:
        assert ("nothing of r is saved yet" in said) == (not saved)
    assert "finished work is saved" not in said


@pytest.mark.parametrize("command", ["evaluate", "prepare"])
def test_sigterm_ends_every_command_with_exit_code_75(
    avsnn: Command, warm: Warm, small_demo: Path, tmp_path: Path, command: str
) -> None:
    if command == "evaluate":
        words = ["--root", str(small_demo), "--run", "r", *SLOW, "--set", "epochs=1"]
        assert avsnn("train", "demo", *words, "--set", "data.size=32").returncode == 0
        process = warm.start(["evaluate", "r", "--part", "train"], tmp_path)
        said = stop_when_it_says(process, "evaluate train: 6 of", signal.SIGTERM)
    else:
        words = ["prepare", "demo", "--limit", "72", *SMALL_SHARDS, *ALONE]
        process = warm.start(words, tmp_path)
        said = stop_when_it_says(process, "extract: 2 of", signal.SIGTERM)
    assert process.wait() == 75, said
    assert said.splitlines()[-1].startswith("avsnn: told to end; ")
    assert "Traceback" not in said


def test_sigterm_ends_a_training_that_waits_for_a_worker(
    warm: Warm, small_demo: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(small_demo, tmp_path / "data"))
    frames, _ = cache_paths(root)
    for chunk in (frames / "frames" / "c").rglob("0"):
        if chunk.is_file():
            # Whoever opens this file waits for ever, as on a server that does not answer.
            chunk.unlink()
            os.mkfifo(chunk)
    words = ["train", "demo", "--run", "r", "--workers", "1", *SLOW]
    process = warm.start(words, tmp_path)
    for line in process.stderr:
        if "parameters on" in line:
            os.kill(process.pid, signal.SIGTERM)
            break
    deadline = time.monotonic() + 40
    while not process.ended(within=1):
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            break
    assert process.wait() == 75
