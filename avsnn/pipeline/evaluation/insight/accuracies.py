"""The accuracy with fewer time steps, and without one or both modalities."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from avsnn.models.rasters import evenly_spread
from avsnn.models.spikformer import UnimodalSpikformer
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.evaluation.insight.record import Contribution, StepAccuracy
from avsnn.pipeline.evaluation.intervals import Resampling
from avsnn.pipeline.inference.open_part import OpenPart
from avsnn.pipeline.inference.predict import Change, Scores

# Each number of time steps is one more pass over the clips; event data may have hundreds of steps.
MOST_STEPS = 16


def numbers_of_steps(model: nn.Module) -> list[int]:
    """Return the numbers of time steps that are measured: 1 to T, or 16 of them, with 1 and T."""
    return [t + 1 for t in evenly_spread(_steps(model), MOST_STEPS).tolist()]


def has_both_modalities(model: nn.Module) -> bool:
    """Return whether a network reads sound and picture."""
    return not isinstance(model, UnimodalSpikformer)


def number_of_passes(model: nn.Module) -> int:
    """Return how often ``step_accuracies`` and ``contribution`` run the clips together."""
    return len(numbers_of_steps(model)) - 1 + 3 * has_both_modalities(model)


@contextmanager
def running_for(model: nn.Module, steps: int) -> Iterator[Change]:
    """Make a network run for some time steps while the context is open, with the same weights.

    The context yields the change of the input that belongs to the number of steps: an input with
    time steps loses all steps behind the first ``steps``. A static image has no steps to lose.

    Args:
        model: the network.
        steps: number t of time steps.
    """

    def first(audio: Tensor, frames: Tensor, _: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        cut_audio, cut_frames = (x[:steps] if x.dim() == 5 else x for x in (audio, frames))
        return cut_audio, cut_frames

    holder: Any = model
    before, holder.steps = holder.steps, steps
    try:
        yield first
    finally:
        holder.steps = before


def step_accuracies(
    opened: OpenPart, clean: Scores, resampling: Resampling, progress: Progress
) -> list[StepAccuracy]:
    """Return the accuracy of the network with 1 to T time steps.

    With t steps, the network is exactly a network that was built for t steps and has these weights.

    Args:
        opened: the network and the clips.
        clean: the scores of the clips with all T steps.
        resampling: draws clips for the intervals.
        progress: told of every clip of every pass.
    """
    accuracies = []
    for steps in numbers_of_steps(opened.model):
        if steps == _steps(opened.model):
            scores = clean
        else:
            with running_for(opened.model, steps) as first:
                scores = opened.scores(change=first, progress=progress)
        accuracies.append(StepAccuracy(steps=steps, top1=resampling.share(scores.is_right)))
    return accuracies


def contribution(opened: OpenPart, clean: Scores, progress: Progress) -> Contribution | None:
    """Return what each modality adds to the accuracy; None for a network of one modality.

    A missing modality is zeros at the input of the network.

    Args:
        opened: the network and the clips.
        clean: the scores of the clips with both modalities.
        progress: told of every clip of every pass.
    """
    if not has_both_modalities(opened.model):
        return None

    def accuracy(*, audio: float, visual: float) -> float:
        def scaled(a: Tensor, v: Tensor, _: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
            return a * audio, v * visual

        return opened.scores(change=scaled, progress=progress).accuracy

    return shapley(
        neither=accuracy(audio=0, visual=0),
        audio=accuracy(audio=1, visual=0),
        visual=accuracy(audio=0, visual=1),
        both=clean.accuracy,
    )


def shapley(*, neither: float, audio: float, visual: float, both: float) -> Contribution:
    """Return the Shapley values of two modalities: what each adds, as a mean over both orders.

    Args:
        neither: accuracy without both modalities.
        audio: accuracy with audio alone.
        visual: accuracy with vision alone.
        both: accuracy with both modalities.

    Returns:
        the contributions, whose sum is ``both - neither``.
    """
    return Contribution(
        neither=neither,
        audio=((audio - neither) + (both - visual)) / 2,
        visual=((visual - neither) + (both - audio)) / 2,
    )


def _steps(model: nn.Module) -> int:
    steps = model.steps
    assert isinstance(steps, int)  # noqa: S101 - every network has its T as a number
    return steps
