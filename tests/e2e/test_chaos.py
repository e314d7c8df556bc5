"""Runs the short version of tests/chaos.py."""

from pathlib import Path

from tests.chaos import chaos


def test_random_kills_of_command_and_workers_change_no_byte(
    avsnn_path: str, tmp_path: Path
) -> None:
    # A worker takes longer to start than to work here; test_kill.py kills runs of two workers.
    words = ["--limit", "24", "--workers", "1"]
    counts = chaos(avsnn_path, tmp_path, kills=2, seed=20, words=words)
    assert (counts["command"], counts["worker"]) == (1, 1)
    assert counts["trees"] >= 1
