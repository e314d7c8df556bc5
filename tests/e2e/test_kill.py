"""Real kills: SIGKILL in the middle of a stage, then the same command again."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from avsnn.pipeline.run import read_metrics
from tests.conftest import SMALL_SHARDS, Command, hashes


def kill_when_it_says(words: list[str], sentence: str, cwd: Path) -> None:
    """Starts a command, waits for a line of its log, kills it there."""
    process = subprocess.Popen(words, cwd=cwd, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(sentence):
            process.send_signal(signal.SIGKILL)
            break
    process.stderr.close()
    assert process.wait() == -signal.SIGKILL, f"it ended before it said {sentence!r}"


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    "sentence", ["fetch: 72 of 144", "extract: 4 of 10", "frames: 1 of 2", "audio: 1 of 2"]
)
def test_killed_prepare_finishes_with_the_same_bytes(
    avsnn: Command, avsnn_path: str, small_demo: Path, tmp_path: Path, sentence: str, workers: str
) -> None:
    words = ["prepare", "demo", "--limit", "72", "--workers", workers, *SMALL_SHARDS]
    kill_when_it_says([avsnn_path, *words], sentence, tmp_path)
    again = avsnn(*words)
    assert again.returncode == 0, again.stderr
    assert hashes(tmp_path / "data" / "demo") == hashes(small_demo / "demo")
    done = avsnn(*words)
    assert "nothing to do" in done.stdout


def test_an_interrupted_prepare_says_so_leaves_nothing_running_and_goes_on(
    avsnn: Command, avsnn_path: str, small_demo: Path, tmp_path: Path
) -> None:
    words = ["prepare", "demo", "--limit", "72", "--workers", "2", *SMALL_SHARDS]
    # A session of its own, so that the interrupt reaches all its processes, as from a terminal.
    process = subprocess.Popen(
        [avsnn_path, *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("extract: 2 of 10"):
            os.killpg(process.pid, signal.SIGINT)
            break
    # The pipe ends when the last process that holds it has: none is left behind.
    said = process.stderr.read()
    assert process.wait() == 130
    assert said.splitlines()[-1].startswith("avsnn: interrupted; what is done is safe")
    assert "Traceback" not in said
    assert avsnn(*words).returncode == 0
    assert hashes(tmp_path / "data" / "demo") == hashes(small_demo / "demo")


TINY = ["--set", "model.channels=16", "--set", "epochs=4", "--set", "batch_size=16"]


def test_killed_training_resumes_to_the_same_curve_and_weights(
    avsnn: Command, avsnn_path: str, small_demo: Path, tmp_path: Path
) -> None:
    words = ["train", "demo", "--root", str(small_demo), "--device", "cpu", *TINY]
    whole = avsnn(*words, "--run", "whole")
    assert whole.returncode == 0, whole.stderr
    cut = [*words, "--run", "cut"]
    kill_when_it_says([avsnn_path, *cut], "epoch 2/4", tmp_path)
    refused = avsnn(*cut)
    assert refused.returncode == 2
    assert "add --resume" in refused.stderr
    resumed = avsnn(*cut, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    assert hashes(tmp_path / "cut" / "checkpoints") == hashes(tmp_path / "whole" / "checkpoints")


def curve(run: Path) -> list[dict[str, object]]:
    return [
        {key: value for key, value in line.items() if key != "samples_per_second"}
        for line in read_metrics(run)
    ]


def test_a_finished_training_is_left_alone_and_another_is_not_mixed_in(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    words = ["train", "demo", "--root", str(small_demo), "--run", "r", *TINY, "--set", "epochs=1"]
    assert avsnn(*words).returncode == 0
    before = hashes(tmp_path / "r")
    again = avsnn(*words)
    assert "nothing to do" in again.stdout
    assert hashes(tmp_path / "r") == before
    other = avsnn(*words, "--set", "seed=7")
    assert other.returncode == 2
    assert "seed 42 there, 7 here" in other.stderr


@pytest.mark.parametrize(
    ("setting", "told"), [("data.size=50", "multiples of 16"), ("batch_size=999", "lower it with")]
)
def test_a_refused_training_leaves_no_folder(
    avsnn: Command, small_demo: Path, tmp_path: Path, setting: str, told: str
) -> None:
    done = avsnn("train", "demo", "--root", small_demo, "--run", "r", "--set", setting)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_folder_with_other_files_does_not_become_a_run(avsnn: Command, small_demo: Path) -> None:
    before = hashes(small_demo / "demo")
    done = avsnn("train", "demo", "--root", small_demo, "--run", small_demo / "demo")
    assert done.returncode == 2
    assert "holds other files and is no run" in done.stderr
    assert hashes(small_demo / "demo") == before


def test_resuming_nothing_is_said(avsnn: Command, small_demo: Path) -> None:
    words = ["train", "demo", "--root", small_demo, "--run", "r", *TINY, "--set", "epochs=1"]
    done = avsnn(*words, "--resume")
    assert done.returncode == 0
    assert "nothing to resume in r" in done.stderr
