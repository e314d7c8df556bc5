from pathlib import Path

import pytest
import torch
from torch import nn

from avsnn.pipeline.runs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from avsnn.pipeline.runs.train_settings import OptimizerSettings
from avsnn.pipeline.training.optimizer import make_optimizer, set_learning_rate
from avsnn.pipeline.training.resume import (
    Position,
    keep_newest,
    newest_undamaged,
    restore_training,
    resume_path,
    resume_points,
    training_tensors,
)

TENSORS = {"weight": torch.arange(6.0)}


def test_a_damaged_newest_resume_point_is_reported_and_the_one_before_is_used(
    tmp_path: Path,
) -> None:
    for position in (Position(0, 9), Position(0, 10), Position(1, 0)):
        write_checkpoint(
            resume_path(tmp_path, position), Checkpoint(TENSORS, {"step": position.step})
        )
    damaged = resume_path(tmp_path, Position(1, 0))
    damaged.write_bytes(damaged.read_bytes()[:50])
    messages: list[str] = []
    found = newest_undamaged(tmp_path, messages.append, epochs=9)
    assert found is not None
    assert (found[0], found[1].facts) == (Position(0, 10), {"step": 10})
    assert len(messages) == 1
    assert messages[0].startswith(f"{damaged} is damaged")
    assert "Going on from the one before it." in messages[0]


def test_if_every_resume_point_is_damaged_the_training_starts_anew_and_says_so(
    tmp_path: Path,
) -> None:
    path = resume_path(tmp_path, Position(1, 0))
    path.write_bytes(b"torn")
    messages: list[str] = []
    assert newest_undamaged(tmp_path, messages.append, epochs=9) is None
    assert messages[0].endswith("There is no other: starting anew.")
    assert not path.exists()
    assert path.with_name(f"{path.name}.damaged").read_bytes() == b"torn"


def test_only_the_newest_resume_points_are_kept(tmp_path: Path) -> None:
    for position in (Position(2, 0), Position(0, 5), Position(10, 0), Position(2, 30)):
        write_checkpoint(resume_path(tmp_path, position), Checkpoint(TENSORS, {}))
    (tmp_path / "best.safetensors").touch()
    keep_newest(tmp_path, 2)
    assert list(resume_points(tmp_path)) == [Position(10, 0), Position(2, 30)]
    assert (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_a_resumed_optimizer_finds_the_moments_of_each_weight(
    tmp_path: Path, form: torch.memory_format
) -> None:
    """Checkpoints are contiguous, and the optimizer goes through memory as it lies there."""
    image = torch.randn(2, 4, 8, 8)

    def training() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Conv2d(4, 6, 3).to(memory_format=form)  # type: ignore[call-overload]
        optimizer = make_optimizer(model, OptimizerSettings())
        set_learning_rate(optimizer, 0.1)
        return model, optimizer

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(image).square().sum().backward()
        optimizer.step()

    whole, cut = training(), training()
    for one in (whole, cut):
        step(*one)
    file = tmp_path / "resume.safetensors"
    write_checkpoint(file, Checkpoint(training_tensors(*cut, None), {}))
    resumed = training()
    restore_training(read_checkpoint(file).tensors, *resumed, None)
    for one in (whole, resumed):
        step(*one)
    assert torch.equal(resumed[0].weight, whole[0].weight)
