import math

import pytest
import torch

from avsnn.models.zoo import ModelSettings, build
from avsnn.pipeline.runs.train_settings import OptimizerSettings
from avsnn.pipeline.training.optimizer import learning_rate, make_optimizer
from avsnn.pipeline.training.state import MovingAverage

PUBLISHED = OptimizerSettings()


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, 1e-6),
        (1, 1e-6 + (6.25e-4 - 1e-6) / 5),
        (4, 1e-6 + (6.25e-4 - 1e-6) * 4 / 5),
        (5, 1e-5 + (6.25e-4 - 1e-5) * (1 + math.cos(math.pi * 5 / 100)) / 2),
        (50, 1e-5 + (6.25e-4 - 1e-5) / 2),
        (99, 1e-5 + (6.25e-4 - 1e-5) * (1 + math.cos(math.pi * 0.99)) / 2),
    ],
)
def test_learning_rate_follows_the_published_schedule(epoch: int, expected: float) -> None:
    rate = learning_rate(PUBLISHED, epoch=epoch, epochs=100, batch_size=128)
    assert rate == pytest.approx(expected, rel=1e-12)


def test_every_parameter_is_trained_and_only_matrices_and_filters_decay() -> None:
    model = build(ModelSettings(channels=32), classes=6)
    decayed, plain = make_optimizer(model, PUBLISHED).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (1e-4, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in plain["params"])
    count = sum(p.numel() for group in (decayed, plain) for p in group["params"])
    assert count == sum(parameter.numel() for parameter in model.parameters())


def test_the_optimizer_has_the_published_constants() -> None:
    group = make_optimizer(torch.nn.Linear(2, 2), PUBLISHED).param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)


def test_the_moving_average_counts_its_updates_on_the_device_of_the_network() -> None:
    average = MovingAverage(build(ModelSettings(channels=32), classes=6).to("meta"), decay=0.9)
    assert average.n_averaged.device.type == "meta"
