"""Stops a training in the middle: by SIGTERM, and by deleting its folder."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from avsnn.errors import PreemptedError, RunError
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.evaluation.evaluate import evaluate
from avsnn.pipeline.evaluation.results import RunResults
from avsnn.pipeline.runs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from avsnn.pipeline.training.resume import Position, resume_points
from tests.e2e.test_kill import curve
from tests.pipeline.training import test_train_settings

WORDS = ["epochs=2", "selection=val", "optimizer.ema_decay=0.9"]


class AtTheEndOf(NoProgress):
    """Calls a function when an epoch has taken its last step, before the validation."""

    def __init__(self, epoch: int, call: Callable[[], None]) -> None:
        self._left, self._call = epoch, call

    def stop(self) -> None:
        self._left -= 1
        if not self._left:
            self._call()


def run(root: Path, folder: Path, *, progress: NoProgress | None = None, resume: bool) -> None:
    test_train_settings.run(root, folder, *WORDS, progress=progress or NoProgress(), resume=resume)


@pytest.fixture(scope="module")
def whole(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(small_demo, folder, resume=False)
    return folder


def swap(new: Path, old: Path) -> None:
    shutil.copy(new, old)


def send_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("epoch", [1, 2])
def test_sigterm_ends_the_validation_and_a_resume_validates_the_same_weights(
    small_demo: Path, tmp_path: Path, whole: Path, epoch: int
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(PreemptedError, match=f"saved after {epoch - 1} epochs and 3 steps"):
        run(small_demo, folder, progress=AtTheEndOf(epoch, send_sigterm), resume=False)
    assert max(resume_points(folder / "checkpoints")) == Position(epoch - 1, 3)
    run(small_demo, folder, resume=True)
    assert curve(folder) == curve(whole)
    for name in ("best", "last", "resume-00002-0000000"):
        path = Path("checkpoints", f"{name}.safetensors")
        assert (folder / path).read_bytes() == (whole / path).read_bytes()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_folder_that_is_deleted_while_it_is_trained_is_an_error(
    small_demo: Path, tmp_path: Path, replaced: bool
) -> None:
    folder = tmp_path / "run"

    def delete() -> None:
        shutil.rmtree(folder)
        if replaced:
            folder.mkdir()
            (folder / ".lock").touch()

    with pytest.raises(RunError, match="was deleted or replaced while it was trained"):
        run(small_demo, folder, progress=AtTheEndOf(2, delete), resume=False)
    assert not (folder / "checkpoints").exists()


def test_a_run_folder_that_is_deleted_while_it_is_evaluated_is_an_error(
    tmp_path: Path, whole: Path
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    progress = AtTheEndOf(1, lambda: shutil.rmtree(folder))
    with pytest.raises(RunError, match="was deleted while it was evaluated"):
        evaluate(folder, part="test", root=None, device=torch.device("cpu"), progress=progress)
    assert not folder.exists()


def test_weights_that_change_while_they_are_evaluated_do_not_get_the_measures_of_the_old_ones(
    tmp_path: Path, whole: Path
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    best, last = (folder / f"checkpoints/{name}.safetensors" for name in ("best", "other"))
    checkpoint = read_checkpoint(best)
    other = {name: torch.zeros_like(tensor) for name, tensor in checkpoint.tensors.items()}
    write_checkpoint(last, Checkpoint(other, checkpoint.facts))

    def measure(progress: NoProgress) -> RunResults:
        return evaluate(
            folder, part="train", root=None, device=torch.device("cpu"), progress=progress
        )

    before = measure(AtTheEndOf(1, lambda: swap(last, best)))
    after = measure(NoProgress())
    assert not after.measured_before
    assert after.evaluation.fingerprint != before.evaluation.fingerprint
