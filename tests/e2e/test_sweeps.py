"""Tables of one's own with ``avsnn reproduce``: several trainings at once, and commands."""

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from avsnn.pipeline.engine.lock import lock_folder
from avsnn.pipeline.training.resume import resume_points
from tests.conftest import Command
from tests.warm import Warm

TABLE = """\
rows:
  - quick: {preset: add, epochs: 1}
  - long: {preset: audio, epochs: 1000}
  - too large a batch: {preset: add, epochs: 1, batch_size: 4096}
"""
WORDS = ["reproduce", "own.yaml", "--dataset", "demo", "--seeds", "1", "--device", "cpu"]
WORDS += ["--preset", "tiny.yaml"]
TINY = "model: {channels: 16}\ndata: {size: 32}\nbatch_size: 16\n"


@pytest.fixture
def words(small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that train a small table of one's own."""
    (tmp_path / "own.yaml").write_text(TABLE)
    (tmp_path / "tiny.yaml").write_text(TINY)
    # The bytes of a training depend on its number of threads.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return [*WORDS, "--root", str(small_demo)]


def test_trainings_at_once_fail_alone_give_the_same_bytes_and_are_saved_at_sigterm(
    avsnn: Command, warm: Warm, words: list[str], tmp_path: Path
) -> None:
    process = warm.start([*words, "--jobs", "3"], tmp_path)
    awaited = {"row quick, seed 1: ", "row too large a batch, seed 1: failed: "}
    said = ""
    for line in process.stderr:
        said += line
        awaited = {start for start in awaited if not line.startswith(start)}
        if not awaited:
            os.kill(process.pid, signal.SIGTERM)
            break
    said += process.stderr.read()
    assert process.wait() == 75, said
    assert "row long, seed 1 (2 of 3)" in said
    assert "batch_size is 4096" in said
    shown = json.loads(avsnn(*words, "--dry-run", "--json").stdout)["lines"]
    quick, long, _ = (tmp_path / line["runs"]["1"] for line in shown)
    # The lock is free, so the child that trained has ended.
    with lock_folder(long):
        assert resume_points(long / "checkpoints")
    assert "saved after" in (long / "log.txt").read_text()
    alone = avsnn(*words, "--rows", "quick", "--runs", "alone")
    assert alone.returncode == 0, alone.stderr
    for name in ("checkpoints/best.safetensors", "report/test-clips.csv"):
        assert (quick / name).read_bytes() == (tmp_path / "alone" / quick.name / name).read_bytes()


def test_the_job_array_runs_one_run_in_each_job_and_goes_on_after_sigterm(
    avsnn: Command, words: list[str], tmp_path: Path
) -> None:
    words += ["--rows", "quick,long", "--runs", "my runs"]
    lines = avsnn(*words, "--emit", "commands").stdout.splitlines()
    script = avsnn(*words, "--emit", "slurm").stdout
    assert "#SBATCH --array=0-1\n" in script
    (tmp_path / "job.sh").write_text(script)
    # Slurm is not here, so its two commands stand for themselves: each says what it is asked for.
    says = 'echo "$(basename "$0") $(printf "%q " "$@")" >> said\n'
    for name, code in (("srun", '[ "$2" = evaluate ] && exit ${ENDS:-0}'), ("scontrol", "")):
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{says}{code}\nexit 0\n")
        path.chmod(0o755)

    def job(number: str, **variables: str) -> tuple[int, list[list[str]]]:
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
        environment |= {"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_JOB_ID": "7"}
        (tmp_path / "said").write_text("")
        done = subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=environment, check=False)
        said = (tmp_path / "said").read_text().splitlines()
        return done.returncode, [shlex.split(line) for line in said]

    for number, line in enumerate(lines):
        commands = [["srun", *shlex.split(command)] for command in line.split(" && ")]
        assert job(str(number)) == (0, commands)
        assert job(str(number), ENDS="1") == (1, commands)
        again = ["scontrol", "requeue", f"7_{number}"]
        assert job(str(number), ENDS="75") == (75, [*commands, again])
    assert job("2") == (2, [])


def test_settings_of_a_row_are_refused_with_the_name_of_the_row(
    avsnn: Command, words: list[str], tmp_path: Path
) -> None:
    for row, sentence in (
        ("{model.alhpa: 1}", "row a: there is no setting model.alhpa (value 1); did you mean"),
        ("{model.alpha: much}", "row a: setting model.alpha cannot be 'much'"),
        ("{seed: 3}", "row a: reproduce takes the seed from --seeds alone."),
        ("{preset: gone.yaml}", "gone.yaml"),
    ):
        (tmp_path / "own.yaml").write_text(f"rows: [a: {row}]")
        done = avsnn(*words, "--dry-run")
        assert done.returncode == 2
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
