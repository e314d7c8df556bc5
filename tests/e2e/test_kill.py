"""Kills commands with SIGKILL in the middle of their work, then runs the same command again."""

import os
import random
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from avsnn.pipeline.runs.metrics import read_metrics
from avsnn.pipeline.training.resume import Position, resume_points
from tests.conftest import ALONE, SMALL_SHARDS, Command, hashes
from tests.warm import Warm


def kill_when_it_says(warm: Warm, words: list[str], sentence: str, cwd: Path) -> None:
    """Start a command, wait for a line of its log, and kill the command at this line."""
    process = warm.start(words, cwd)
    for line in process.stderr:
        if line.startswith(sentence):
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL, f"the command ended before the line {sentence!r}"


@pytest.mark.parametrize(
    ("sentence", "workers"),
    [
        ("fetch: 72 of 144", "0"),
        ("extract: 5 of 14", "2"),
        ("frames: 1 of 2", "0"),
        ("audio: 1 of 2", "2"),
    ],
)
def test_a_killed_prepare_finishes_with_the_same_bytes(
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


def test_an_interrupted_prepare_ends_its_workers_and_the_next_run_finishes(
    avsnn: Command, avsnn_path: str, small_demo: Path, tmp_path: Path
) -> None:
    words = ["prepare", "demo", "--limit", "72", "--workers", "2", *SMALL_SHARDS]
    # In its own session, so that the interrupt reaches all its processes, as from a terminal.
    process = subprocess.Popen(
        [avsnn_path, *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("extract: 2 of 14"):
            os.killpg(process.pid, signal.SIGINT)
            break
    # The pipe ends only when every process that holds the pipe has ended: no worker is left.
    stderr = process.stderr.read()
    assert process.wait() == 130
    assert stderr.splitlines()[-1].startswith("avsnn: interrupted; all finished work is saved")
    assert "Traceback" not in stderr
    assert avsnn(*words, *ALONE).returncode == 0
    assert hashes(tmp_path / "data" / "demo") == hashes(small_demo / "demo")


TINY = ["--set", "model.channels=16", "--set", "epochs=4", "--set", "batch_size=8"]
# Every part of the network spikes; otherwise the test would not notice a lost part of the state.
TINY += ["--preset", "healthy", "--set", "optimizer.ema_decay=0.9", "--set", "data.size=32"]


@pytest.fixture(scope="module")
def whole_run(
    warm: Warm, small_demo: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path]:
    """A training without a kill: its command without ``--run``, and its run folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    words = ["train", "demo", "--root", str(small_demo), "--device", "cpu", *TINY]
    words += ["--save-every", "1"]
    done = warm.run([*words, "--run", str(folder)], folder.parent)
    assert done.returncode == 0, done.stderr
    return words, folder


def assert_same_as_without_kill(run: Path, whole: Path) -> None:
    assert curve(run) == curve(whole)
    assert hashes(run / "checkpoints") == hashes(whole / "checkpoints")


# Loader workers, or shards instead of the cache, change neither the samples nor their order.
@pytest.mark.parametrize("options", [[], ["--workers", "1"], ["--read", "shards"]])
def test_training_killed_at_random_steps_resumes_to_the_same_curve_and_weights(
    warm: Warm, whole_run: tuple[list[str], Path], tmp_path: Path, options: list[str]
) -> None:
    words, whole = whole_run
    run, rng = tmp_path / "run", random.Random(len(options))
    words = [*words, "--run", str(run), "--resume"]
    for epoch in (rng.randrange(2), 2):
        # Not one of the last steps: a busy machine may look at the folder too late.
        target = Position(epoch, rng.randrange(1, 3))
        process = warm.start([*words, *options], tmp_path)
        # Kill at any step after ``target``: the training goes on between two looks at the folder.
        while max(resume_points(run / "checkpoints"), default=Position(0, 0)) < target:
            if process.ended(within=0.01):
                pytest.fail("the training ended before the kill")
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = warm.run(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_as_without_kill(run, whole)


def test_sigterm_saves_the_last_step_and_ends_with_exit_code_75(
    avsnn_path: str, warm: Warm, whole_run: tuple[list[str], Path], tmp_path: Path
) -> None:
    words, whole = whole_run
    # Without --save-every, only the signal makes the training save within an epoch.
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
            # As a cluster does, send the signal to the command and to its loader workers.
            os.killpg(process.pid, signal.SIGTERM)
            break
    _, stderr = process.communicate()
    assert process.returncode == 75, stderr
    assert "told to end; saved after 1 epochs and" in stderr
    assert "Traceback" not in stderr
    position = max(resume_points(tmp_path / "run" / "checkpoints"))
    resumed = warm.run([*words, "--resume"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{position.epoch} of 4 epochs and {position.step} steps done before" in resumed.stderr
    assert curve(tmp_path / "run") == curve(whole)
    best = "checkpoints/best.safetensors"
    assert (tmp_path / "run" / best).read_bytes() == (whole / best).read_bytes()


def test_a_damaged_resume_point_is_reported_and_the_one_before_is_used(
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
    # The damaged file is kept, so that nobody loses what could still be read from the file.
    newest.with_name(f"{newest.name}.damaged").unlink()
    assert_same_as_without_kill(run, whole)


def test_an_unfinished_training_continues_only_with_resume(
    avsnn: Command, warm: Warm, small_demo: Path, tmp_path: Path
) -> None:
    words = ["train", "demo", "--root", str(small_demo), "--run", "cut", *TINY]
    kill_when_it_says(warm, words, "epoch 1/4", tmp_path)
    refused = avsnn(*words)
    assert refused.returncode == 2
    assert "add --resume" in refused.stderr


def curve(run: Path) -> list[dict[str, object]]:
    """Return the metrics of all epochs, without the speed."""
    return [
        {key: value for key, value in line.items() if key != "samples_per_second"}
        for line in read_metrics(run)
    ]


def test_a_finished_training_stays_unchanged_and_other_settings_are_refused(
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
    ("setting", "part_of_message"),
    [
        ("data.size=50", "multiples of 16"),
        ("batch_size=999", "try --set batch_size="),
        ("data.size=65536", "allowed: above 0 and at most 4,096"),
        ("optimizer.base_lr=.inf", "allowed: above 0 and at most 1,000"),
        ("model.steps=1024 model.channels=1024 data.size=256", "GB of memory, and cpu has"),
        ("model.channels=8192 model.mlp_ratio=16", "GB of memory, and cpu has"),
    ],
)
def test_a_refused_training_leaves_no_folder(
    avsnn: Command, small_demo: Path, tmp_path: Path, setting: str, part_of_message: str
) -> None:
    words = [word for assignment in setting.split() for word in ("--set", assignment)]
    done = avsnn("train", "demo", "--root", small_demo, "--run", "r", *words)
    assert done.returncode == 2
    assert part_of_message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


def test_memory_that_runs_out_in_training_ends_with_one_sentence(
    avsnn_path: str, small_demo: Path, tmp_path: Path
) -> None:
    words = ["train", "demo", "--root", str(small_demo), "--run", "r", "--device", "cpu"]
    words += ["--set", "model.channels=256", "--set", "data.size=256", "--set", "epochs=1"]
    done = subprocess.run(
        ["prlimit", f"--as={4 * 2**30}", avsnn_path, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "there is not enough memory" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_file_is_refused_as_a_run_folder(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = avsnn("train", "demo", "--root", small_demo, "--run", "file")
    assert done.returncode == 2
    assert "file is a file and no folder" in done.stderr


def test_a_folder_with_other_files_is_refused_as_a_run_folder(
    avsnn: Command, small_demo: Path
) -> None:
    before = hashes(small_demo / "demo")
    done = avsnn("train", "demo", "--root", small_demo, "--run", small_demo / "demo")
    assert done.returncode == 2
    assert "holds other files and is no run" in done.stderr
    assert hashes(small_demo / "demo") == before


@pytest.mark.parametrize("name", [".config.yaml.4711.partial", ".config.yaml.a-1-0f.partial"])
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_training_killed_while_it_wrote_its_config_starts_again_and_removes_what_was_left(
    avsnn: Command, small_demo: Path, tmp_path: Path, name: str, resume: list[str]
) -> None:
    left = tmp_path / "r" / name
    left.parent.mkdir()
    left.write_text("fingerprint: ")
    (tmp_path / "r" / ".lock").touch()
    words = ["train", "demo", "--root", small_demo, "--run", "r", *TINY, "--set", "epochs=1"]
    done = avsnn(*words, *resume)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "r").rglob("*.partial"))


def test_a_training_that_found_no_room_for_its_config_goes_on_with_the_same_command(
    avsnn: Command, small_demo: Path, tiny_disk: Path
) -> None:
    filler = tiny_disk / "filler"
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while file.write(bytes(512)):
            pass
    words = ["train", "demo", "--root", small_demo, "--run", tiny_disk / "r", *TINY]
    words += ["--set", "epochs=1", "--set", "model.channels=8", "--set", "model.heads=8"]
    full = avsnn(*words)
    assert full.returncode == 1, full.stderr
    assert "is full" in full.stderr.splitlines()[-1]
    assert not (tiny_disk / "r" / "config.yaml").exists()
    filler.unlink()
    done = avsnn(*words)
    assert done.returncode == 0, done.stderr


def test_resume_without_a_run_says_so_and_trains_from_the_start(
    avsnn: Command, small_demo: Path
) -> None:
    words = ["train", "demo", "--root", small_demo, "--run", "r", *TINY, "--set", "epochs=1"]
    done = avsnn(*words, "--resume")
    assert done.returncode == 0
    assert "nothing to resume in r" in done.stderr
