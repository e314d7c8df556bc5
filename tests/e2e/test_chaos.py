"""Runs the short version of tests/chaos.py."""

from pathlib import Path

from tests.chaos import EVALUATE, PREPARE, REPRODUCE, TRAIN, Installed, chaos
from tests.warm import Warm


def test_random_kills_of_command_and_workers_change_no_byte(
    avsnn_path: str, tmp_path: Path
) -> None:
    # A worker takes longer to start than to work here; test_kill.py kills runs of two workers.
    commands = [[*PREPARE, "--limit", "24", "--workers", "1"]]
    counts = chaos(
        lambda words, cwd: Installed(avsnn_path, words, cwd),
        tmp_path,
        kills=2,
        seed=20,
        commands=commands,
    )
    assert (counts["command"], counts["worker"]) == (1, 1)
    assert counts["trees"] >= 1


def test_random_kills_of_train_evaluate_and_reproduce_change_no_figure(
    warm: Warm, small_demo: Path, tmp_path: Path
) -> None:
    root = ["--root", str(small_demo)]
    commands = [[*TRAIN, *root], EVALUATE, [*REPRODUCE, *root]]
    counts = chaos(warm.start, tmp_path, kills=4, seed=2, commands=commands)
    assert counts["command"] == 4
    assert counts["trees"] >= 1
