"""Real kills: SIGKILL in the middle of a stage, then the same command again."""

import signal
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

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
    for name in ("best", "last"):
        ours, theirs = (
            load_file(tmp_path / run / "checkpoints" / f"{name}.safetensors")
            for run in ("cut", "whole")
        )
        assert all(ours[key].equal(theirs[key]) for key in theirs)


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
