"""Runs commands in environments that lack something, or that hold wrong values."""

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from avsnn.pipeline.inference.device import bfloat16_advice
from avsnn.pipeline.runs.train_settings import TrainSettings
from tests.conftest import PROJECT

TINY = ["--set", "model.channels=16", "--set", "epochs=1", "--set", "batch_size=16"]
TINY += ["--set", "data.size=32", "--device", "cpu"]


def train(
    avsnn_path: str, root: Path, cwd: Path, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Train the demo with a changed environment; None removes a variable."""
    changed = {**os.environ, "PYTHONPATH": str(PROJECT), **environment}
    return subprocess.run(
        [avsnn_path, "train", "demo", "--root", str(root), "--run", "r", *TINY],
        cwd=cwd,
        env={name: value for name, value in changed.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_training_without_git_and_without_a_compiler_says_once_what_is_slower(
    avsnn_path: str, small_demo: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    empty = {"PATH": str(programs), "XDG_CACHE_HOME": str(tmp_path / "cache"), "CC": None}
    done = train(avsnn_path, small_demo, tmp_path, **empty)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert said.count("neurons run on plain torch, which is slower: there is no C compiler") == 1
    assert "git_commit: ''" in (tmp_path / "r" / "config.yaml").read_text()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("home", [None, "", "/proc/nope", "/dev/null"])
def test_a_training_without_a_usable_home_works(
    avsnn_path: str, small_demo: Path, tmp_path: Path, home: str | None
) -> None:
    done = train(avsnn_path, small_demo, tmp_path, HOME=home, XDG_CACHE_HOME=None)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_a_training_says_once_what_the_compiler_cannot_compile_and_what_the_cpu_could_do(
    avsnn_path: str, small_demo: Path, tmp_path: Path
) -> None:
    header = tmp_path / "old.h"
    header.write_text("#error this compiler is too old\n")
    compiler = f"{os.environ.get('CC', 'cc')} -include {header}"
    cache = str(tmp_path / "cache")
    done = train(avsnn_path, small_demo, tmp_path, CC=compiler, XDG_CACHE_HOME=cache)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    known = "neurons run on plain torch, which is slower: the C compiler "
    if shutil.which("cc"):
        assert said.count(f"{known}{compiler} cannot compile the kernels (") == 1
        assert said.count("this compiler is too old") == 1
    has_bfloat16 = bfloat16_advice(TrainSettings(), torch.device("cpu"))
    assert said.count("--set compute.precision=bf16") == (1 if has_bfloat16 else 0)


def test_a_user_without_a_name_and_a_home_can_train(
    avsnn_path: str, small_demo: Path, tmp_path: Path
) -> None:
    if os.getuid() != 0 or not (setpriv := shutil.which("setpriv")):
        pytest.skip("changing the user needs root and setpriv")
    words = [avsnn_path, "status", "--root", "data", "--runs", "runs"]
    program = "import sys; from avsnn.models.kernels import cpu; print(cpu._library())"
    python = str(Path(avsnn_path).with_name("python"))
    for command in ([*words], [python, "-c", program]):
        done = subprocess.run(
            [setpriv, "--reuid=54321", "--clear-groups", *command],
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "abc"},
        {"WORLD_SIZE": ""},
        {"WORLD_SIZE": "0"},
        {"WORLD_SIZE": "-3"},
        {"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        {"WORLD_SIZE": "2", "RANK": "5", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "x"},
    ],
    ids=lambda environment: ",".join(f"{k}={v}" for k, v in environment.items()),
)
def test_variables_of_torchrun_that_are_wrong_end_with_one_sentence(
    avsnn_path: str, small_demo: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    done = train(avsnn_path, small_demo, tmp_path, **environment)
    assert done.returncode == 2, done.stderr
    assert "torchrun" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_module_of_the_current_folder_is_never_executed(avsnn_path: str, tmp_path: Path) -> None:
    for name in ("struct", "socket", "yaml", "typer", "csv", "logging", "numpy", "email"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w').write(__name__)\n")
    python = str(Path(avsnn_path).with_name("python"))
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [python, "-m", "avsnn", "status"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not (tmp_path / "executed").exists(), (tmp_path / "executed").read_text()
    assert done.returncode == 0, done.stderr


def test_workers_that_cannot_start_end_the_command_with_one_sentence(
    avsnn_path: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [avsnn_path, "prepare", "demo", "--limit", "2", "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        # Enough files for the scheduler, too few for a worker.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (28, 28)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "add --workers 0" in done.stderr.splitlines()[-1]
    assert len(list((tmp_path / "data" / "demo" / "raw").rglob("*.wav"))) == 2
