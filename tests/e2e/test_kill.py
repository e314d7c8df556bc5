"""Real kills: SIGKILL in the middle of a stage, then the same command again."""

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from avsnn.pipeline.checkpoint import Position, resume_points
from avsnn.pipeline.run import read_metrics
from tests.conftest import ALONE, SMALL_SHARDS, Command, hashes
from tests.warm import Warm


def kill_when_it_says(warm: Warm, words: list[str], sentence: str, cwd: Path) -> None:
    """Starts a command, waits for a line of its log, kills it there."""
    process = warm.start(words, cwd)
    for line in process.stderr:
        if line.startswith(sentence):
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL, f"it ended before it said {sentence!r}"


@pytest.mark.parametrize(
    ("sentence", "workers"),
    [
        ("fetch: 72 of 144", "0"),
        ("extract: 4 of 10", "2"),
        ("frames: 1 of 2", "0"),
        ("audio: 1 of 2", "2"),
    ],
)
def test_killed_prepare_finishes_with_the_same_bytes(
    avsnn: Command, warm: Warm, small_demo: Path, tmp_path: Path, sentence: str, workers: str
) -> None:
    words = ["prepare", "demo", "--limit", "72", *SMALL_SHARDS]
    kill_when_it_says(warm, [*words, "--workers", workers], sentence, tmp_path)
    words += ALONE
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
    assert avsnn(*words, *ALONE).returncode == 0
    assert hashes(tmp_path / "data" / "demo") == hashes(small_demo / "demo")


TINY = ["--set", "model.channels=16", "--set", "epochs=4", "--set", "batch_size=8"]
# All of the network has something to do, or a lost part of its state would not be missed.
TINY += ["--preset", "healthy", "--set", "optimizer.ema_decay=0.9", "--set", "data.size=32"]


@pytest.fixture(scope="module")
def whole_run(
    warm: Warm, small_demo: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path]:
    """A training that nobody cut: its words without a run folder, and the folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    words = ["train", "demo", "--root", str(small_demo), "--device", "cpu", *TINY]
    words += ["--save-every", "1"]
    done = warm.run([*words, "--run", str(folder)], folder.parent)
    assert done.returncode == 0, done.stderr
    return words, folder


def assert_as_if_not_cut(run: Path, whole: Path) -> None:
    assert curve(run) == curve(whole)
    assert hashes(run / "checkpoints") == hashes(whole / "checkpoints")


# Loader workers and shards in place of the cache: no other sample, nor in another order.
@pytest.mark.parametrize("manner", [[], ["--workers", "1"], ["--read", "shards"]])
def test_training_killed_at_random_steps_resumes_to_the_same_curve_and_weights(
    warm: Warm, whole_run: tuple[list[str], Path], tmp_path: Path, manner: list[str]
) -> None:
    words, whole = whole_run
    run, dice = tmp_path / "run", random.Random(len(manner))
    words = [*words, "--run", str(run), "--resume"]
    for epoch in (dice.randrange(2), 2):
        due = Position(epoch, dice.randrange(1, 5))
        process = warm.start([*words, *manner], tmp_path)
        # Somewhere in the steps behind it, wherever the next look finds the training.
        while max(resume_points(run / "checkpoints"), default=Position(0, 0)) < due:
            if process.ended(within=0.01):
                pytest.fail("it ended before it came so far")
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = warm.run(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert_as_if_not_cut(run, whole)


def test_sigterm_saves_the_very_step_and_leaves_with_a_code_of_its_own(
    avsnn_path: str, warm: Warm, whole_run: tuple[list[str], Path], tmp_path: Path
) -> None:
    words, whole = whole_run
    # Saved because of the signal, not because it was time.
    words = [word for word in words if word not in ("--save-every", "1")]
    words += ["--run", str(tmp_path / "run"), "--workers", "1"]
    process = subprocess.Popen(
        [avsnn_path, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 1/4"):
            # As a cluster does it: to the command and to its loader processes alike.
            os.killpg(process.pid, signal.SIGTERM)
            break
    _, said = process.communicate()
    assert process.returncode == 75, said
    assert "told to end; saved after 1 epochs and" in said
    assert "Traceback" not in said
    at = max(resume_points(tmp_path / "run" / "checkpoints"))
    resumed = warm.run([*words, "--resume"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{at.epoch} of 4 epochs and {at.step} steps done before" in resumed.stderr
    assert curve(tmp_path / "run") == curve(whole)
    best = "checkpoints/best.safetensors"
    assert (tmp_path / "run" / best).read_bytes() == (whole / best).read_bytes()


def test_a_torn_resume_point_is_said_and_the_one_before_it_serves(
    warm: Warm, whole_run: tuple[list[str], Path], tmp_path: Path
) -> None:
    words, whole = whole_run
    run = tmp_path / "run"
    words = [*words, "--run", str(run)]
    kill_when_it_says(warm, words, "epoch 2/4", tmp_path)
    newest = next(iter(resume_points(run / "checkpoints").values()))
    os.truncate(newest, newest.stat().st_size - 1000)
    done = warm.run([*words, "--resume"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{newest} is damaged" in done.stderr
    assert "Going on from the one before it." in done.stderr
    assert_as_if_not_cut(run, whole)


def test_an_unfinished_training_is_not_gone_on_with_unasked(
    avsnn: Command, warm: Warm, small_demo: Path, tmp_path: Path
) -> None:
    words = ["train", "demo", "--root", str(small_demo), "--run", "cut", *TINY]
    kill_when_it_says(warm, words, "epoch 1/4", tmp_path)
    refused = avsnn(*words)
    assert refused.returncode == 2
    assert "add --resume" in refused.stderr


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


def test_a_file_does_not_become_a_run(avsnn: Command, small_demo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = avsnn("train", "demo", "--root", small_demo, "--run", "file")
    assert done.returncode == 2
    assert "file is a file and no folder" in done.stderr


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
