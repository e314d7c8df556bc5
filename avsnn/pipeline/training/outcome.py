"""A finished training that hardly gives the network that a person wants."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from avsnn.pipeline.runs.metrics import best_epoch
from avsnn.pipeline.runs.train_settings import TrainSettings

# A shorter training is a check, of which nobody expects a network.
FEWEST_EPOCHS = 5

# In more steps than these, the running statistics of batch norm follow the weights.
STEPS_TO_SETTLE = 500

# How far train accuracy may lie above the accuracy in evaluation before the distance is odd.
LARGE_GAP = 0.25


def doubt_about(
    metrics: Sequence[dict[str, Any]],
    settings: TrainSettings,
    *,
    steps_per_epoch: int,
    labels: Tensor | None,
) -> str:
    """Return what is doubtful about a finished training, why, and what to try; empty if nothing.

    Of several doubts, the one with the most certain reason is returned.

    Args:
        metrics: the lines of ``metrics.jsonl``.
        settings: the settings of the training.
        steps_per_epoch: number of steps in an epoch.
        labels: classes of the clips of the part that chooses the epoch, ``[N]``; None if
            ``selection`` is ``last``.
    """
    if labels is None or len(metrics) < FEWEST_EPOCHS:
        return ""
    part = settings.selection
    learned, last = metrics[-1]["accuracy"], metrics[-1][f"{part}_accuracy"]
    best = best_epoch(list(metrics), part)
    steps, highest = steps_per_epoch * len(metrics), best[f"{part}_accuracy"]
    is_settled = steps > STEPS_TO_SETTLE or settings.optimizer.recalibrate_norms
    if learned - last >= LARGE_GAP and not is_settled:
        return (
            f"train accuracy is {learned:.0%} and {part} accuracy {last:.0%} after {steps} steps: "
            "the running statistics of batch norm, which evaluation uses, likely have not settled "
            "in so few steps; try --set optimizer.recalibrate_norms=true"
        )
    if highest < _highest_by_chance(labels):
        return _at_chance(metrics, part, learned=learned, highest=highest, labels=labels)
    if best["epoch"] == 1 and highest < 1:
        return (
            f"the best of {len(metrics)} epochs on {part} is the first: the learning rate is "
            "likely so high that later steps spoil what was learned; try --set optimizer.base_lr="
            f"{settings.optimizer.base_lr / 4:g}"
        )
    return ""


def _at_chance(
    metrics: Sequence[dict[str, Any]], part: str, *, learned: float, highest: float, labels: Tensor
) -> str:
    if len({line[f"{part}_accuracy"] for line in metrics}) == 1:
        return (
            f"{part} accuracy is {highest:.0%} in every epoch: the network likely gives every clip "
            "the same answer, because its layers hardly spike or it has hardly learned; try "
            "--preset healthy, or more epochs"
        )
    sentence = (
        f"the best {part} accuracy, {highest:.0%} of {len(labels)} clips, is not clearly better "
        f"than the {_chance(labels):.0%} of always answering the most frequent class"
    )
    if learned - highest < LARGE_GAP:
        return (
            f"{sentence}, and train accuracy is {learned:.0%}: the network has likely learned too "
            "little; try more epochs, a smaller batch_size or a higher optimizer.base_lr"
        )
    return (
        f"{sentence}, and train accuracy is {learned:.0%}: the network has likely learned its "
        "clips by heart; try more clips, or a smaller model.channels"
    )


def _chance(labels: Tensor) -> float:
    """Return the accuracy of always answering the most frequent class."""
    return float(labels.bincount().max()) / len(labels)


def _highest_by_chance(labels: Tensor) -> float:
    """Return the accuracy that guessing stays below in most trainings; at most 1.

    Guesses of N clips with probability p have the standard deviation sqrt(p (1 - p) / N). The
    result lies two standard deviations above p.
    """
    chance = _chance(labels)
    return float(min(1.0, chance + 2 * (chance * (1 - chance) / len(labels)) ** 0.5))
