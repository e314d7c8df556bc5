"""Trains on values that are NaN or infinite: the training ends, and saves nothing of them."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from avsnn.pipeline.runs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from avsnn.pipeline.training.distributed import ProcessGroup
from avsnn.pipeline.training.finite_check import BadStep, FiniteCheck
from tests.conftest import Command, hashes

TINY = ["--set", "model.channels=16", "--set", "epochs=2", "--set", "batch_size=16"]
TINY += ["--set", "data.size=32"]


@pytest.fixture
def one_epoch(avsnn: Command, small_demo: Path, tmp_path: Path) -> Path:
    """A run of two epochs that stands after its first epoch."""
    done = avsnn("train", "demo", "--root", small_demo, "--run", "r", "--keep", "9", *TINY)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "r"
    (run / "checkpoints" / "resume-00002-0000000.safetensors").unlink()
    first_line = (run / "metrics.jsonl").read_text().splitlines(keepends=True)[0]
    (run / "metrics.jsonl").write_text(first_line)
    return run


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_end_the_training_before_anything_is_saved(
    avsnn: Command, small_demo: Path, one_epoch: Path, value: float
) -> None:
    point = one_epoch / "checkpoints" / "resume-00001-0000000.safetensors"
    tensors, facts = read_checkpoint(point)
    name = next(name for name in tensors if name.startswith("model.") and "head.weight" in name)
    tensors[name].view(-1)[0] = value
    write_checkpoint(point, Checkpoint(tensors, facts))
    before = hashes(one_epoch / "checkpoints")
    words = ["train", "demo", "--root", small_demo, "--run", "r", "--resume", *TINY]
    done = avsnn(*words, "--save-every", "1")
    assert done.returncode == 1, done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert re.search(
        r"the loss is NaN or infinite in epoch 2, step 1 \(learning rate [\d.e-]+; "
        r"first clips of the batch: \w+.*, \w+.*, \w+.*\)",
        sentence,
    ), sentence
    assert "Traceback" not in done.stderr
    assert hashes(one_epoch / "checkpoints") == before
    assert len((one_epoch / "metrics.jsonl").read_text().splitlines()) == 1


def test_an_input_that_is_not_finite_ends_the_training_and_names_clips(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(small_demo, tmp_path / "data")
    (cache,) = (root / "demo" / "cache").glob("audio-*")
    zarr.open_array(cache / "audio", mode="r+")[:] = np.nan
    done = avsnn("train", "demo", "--root", root, "--run", "r", *TINY)
    assert done.returncode == 1, done.stderr
    assert "an input is NaN or infinite in epoch 1, step 1 (learning rate" in done.stderr
    assert not list((tmp_path / "r").glob("checkpoints/*"))
    assert "Traceback" not in done.stderr


def test_a_checkpoint_that_is_not_finite_is_not_reported(avsnn: Command, one_epoch: Path) -> None:
    best = one_epoch / "checkpoints" / "best.safetensors"
    tensors, facts = read_checkpoint(best)
    next(t for name, t in tensors.items() if "head.weight" in name).fill_(float("nan"))
    write_checkpoint(best, Checkpoint(tensors, facts))
    done = avsnn("evaluate", "r")
    assert done.returncode == 1, done.stderr
    assert "the loss on test is NaN or infinite" in done.stderr
    assert not (one_epoch / "report" / "test.json").exists()


def test_the_first_bad_step_and_the_first_bad_value_of_the_step_are_kept() -> None:
    good, bad = torch.tensor(1.0), torch.tensor(float("nan"))
    check = FiniteCheck(torch.device("cpu"))

    def note(step: int, *, last: torch.Tensor, loss: torch.Tensor, norm: torch.Tensor) -> None:
        check.start_step(epoch=3, step=step)
        check.note(inputs=(good, last), loss=loss, norm=norm)

    note(0, last=good, loss=good, norm=good)
    assert check.first_bad_step(ProcessGroup()) is None
    note(70_000, last=good, loss=good, norm=bad)
    note(70_001, last=bad, loss=bad, norm=bad)
    found = check.first_bad_step(ProcessGroup())
    assert found == BadStep(3, 70_000, "the norm of the gradient")
