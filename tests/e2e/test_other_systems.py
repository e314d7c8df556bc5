"""Runs what other systems than Linux need, as far as Linux can run it."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from avsnn.pipeline.loading.open_files import MOST_ON_MACOS, allow_many_open_files
from tests.conftest import PROJECT

TINY = ["--set", "model.channels=16", "--set", "epochs=1", "--set", "batch_size=4"]
TINY += ["--set", "data.size=32", "--set", "selection=last", "--device", "cpu"]


def test_three_commands_need_no_function_that_windows_lacks(tmp_path: Path) -> None:
    commands = [
        ["prepare", "demo", "--limit", "18", "--workers", "0"],
        ["train", "demo", "--run", "r", "--read", "shards", *TINY],
        ["verify", "demo"],
        ["evaluate", "r"],
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.without_posix"],
        input="\n".join(map(json.dumps, commands)),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("neurons run on plain torch, which is slower: avsnn compiles no") == 1
    assert (tmp_path / "r" / "report" / "report.html").exists()


def test_a_system_that_refuses_a_million_open_files_gives_what_macos_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = [256, resource.RLIM_INFINITY]

    def set_as_macos(_which: int, wanted: tuple[int, int]) -> None:
        if wanted[0] > MOST_ON_MACOS:
            raise ValueError("invalid argument")
        limits[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _which: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", set_as_macos)
    allow_many_open_files()
    assert limits == [MOST_ON_MACOS, resource.RLIM_INFINITY]
    allow_many_open_files()
    assert limits == [MOST_ON_MACOS, resource.RLIM_INFINITY]
