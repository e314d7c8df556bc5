from types import SimpleNamespace

import pytest
import torch
from torch import nn

from avsnn.models import kernels
from avsnn.pipeline.inference.network import place_network
from avsnn.pipeline.runs.train_settings import TrainSettings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "wanted", "innermost"),
    [("cpu", False, False), ("cpu", True, True), ("triton", False, True)],
)
def test_filters_have_the_memory_format_of_the_kernels_and_the_same_values(
    monkeypatch: pytest.MonkeyPatch, name: str, wanted: bool, innermost: bool
) -> None:
    # Triton needs a GPU or a process of its own with an interpreter, so only its name is given.
    monkeypatch.setattr(kernels, "kernels_for", lambda _: SimpleNamespace(NAME=name))
    settings = TrainSettings.model_validate({"compute": {"channels_last": wanted}})
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv1d(4, 4, 1))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    placed = place_network(model, settings, CPU)
    assert placed[0].weight.is_contiguous() is not innermost
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last) is innermost
    assert placed[1].weight.is_contiguous()
    for key, tensor in placed.state_dict().items():
        assert torch.equal(tensor, before[key])
