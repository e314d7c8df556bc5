from typing import Any

import pytest
import torch

from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training.outcome import doubt_about

# Nine clips of three classes, so that guessing gives 33 %.
LABELS = torch.arange(9) % 3


def curve(learned: float, *accuracies: float) -> list[dict[str, Any]]:
    """Return the lines of a training from its accuracies on val; the loss on val falls."""
    return [
        {"epoch": number, "accuracy": learned, "val_accuracy": accuracy, "val_loss": 1 / number}
        for number, accuracy in enumerate(accuracies, 1)
    ]


def doubt(metrics: list[dict[str, Any]], *words: str, steps: int = 3, **others: Any) -> str:
    settings = build_settings(TrainSettings, (), words)
    return doubt_about(metrics, settings, steps_per_epoch=steps, **{"labels": LABELS} | others)


@pytest.mark.parametrize(
    ("metrics", "steps", "parts"),
    [
        (
            curve(1.0, *[1 / 3] * 20),
            3,
            ["100% and val accuracy 33% after 60 steps", "--set optimizer.recalibrate_norms=true"],
        ),
        (curve(0.4, *[1 / 3] * 20), 3, ["33% in every epoch", "--preset healthy"]),
        (curve(0.4, *[0.2, 0.4] * 10), 3, ["40% of 9 clips", "the 33% of always", "more epochs"]),
        (curve(1.0, *[0.2, 0.4] * 300), 3, ["40% of 9 clips", "by heart", "more clips"]),
        (curve(0.9, 0.9, *[0.7] * 9), 3, ["best of 10 epochs on val is the first", "=0.00125"]),
    ],
)
def test_a_training_without_success_is_told_with_a_reason_and_what_to_try(
    metrics: list[dict[str, Any]], steps: int, parts: list[str]
) -> None:
    sentence = doubt(metrics, steps=steps)
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize(
    "metrics",
    [
        curve(1.0, *[0.3] * 5, *[0.9] * 5),
        # Every answer is right from the first epoch on.
        curve(1.0, *[1.0] * 10),
        # Too short for an opinion.
        curve(1.0, *[1 / 3] * 4),
    ],
)
def test_nothing_is_doubtful_about_a_training_with_success_or_a_short_check(
    metrics: list[dict[str, Any]],
) -> None:
    assert not doubt(metrics)
    assert not doubt(metrics, labels=None)


def test_new_statistics_are_proposed_only_where_they_are_few_and_old() -> None:
    metrics = curve(1.0, *[0.2, 0.4] * 10)
    assert "recalibrate_norms" in doubt(metrics)
    assert "recalibrate_norms" not in doubt(metrics, "optimizer.recalibrate_norms=true")
    assert "recalibrate_norms" not in doubt(metrics, steps=100)


def test_always_answering_a_frequent_class_is_no_success() -> None:
    labels = torch.tensor([0] * 18 + [1, 2])
    assert "the 90% of always" in doubt(curve(0.9, *[0.85, 0.9] * 5), labels=labels)
