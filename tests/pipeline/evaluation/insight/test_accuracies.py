"""Accuracy with fewer time steps, and what each modality adds."""

from itertools import pairwise

import pytest
import torch

from avsnn.models.readout import token_and_time_mean
from avsnn.models.zoo import METHODS, build
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.evaluation.insight.accuracies import (
    contribution,
    numbers_of_steps,
    running_for,
    shapley,
    step_accuracies,
)
from avsnn.pipeline.evaluation.intervals import Resampling
from tests.pipeline.evaluation.insight.parts import CLASSES, made_up_part


@pytest.mark.parametrize("frames", [None, 4], ids=["images", "events"])
@pytest.mark.parametrize("method", METHODS)
def test_t_steps_are_a_network_that_was_built_for_t_steps(method: str, frames: int | None) -> None:
    with made_up_part(method, frames=frames) as opened:
        settings = opened.run.config.settings.model.model_copy(update={"steps": 2})
        built = build(
            settings,
            classes=len(CLASSES),
            visual_channels=3 if frames is None else 2,
            tokens=4,
        )
        built.load_state_dict(opened.model.state_dict())

        def first_two(audio, visual, _):
            # Event frames are [T, B, C, H, W].
            return (audio, visual) if frames is None else (audio[:2], visual[:2])

        of_two = opened._replace(model=built).scores(change=first_two)
        with running_for(opened.model, 2) as change:
            scores = opened.scores(change=change)
        everything = opened.scores()
        accuracies = step_accuracies(opened, everything, Resampling(opened.keys), NoProgress())
    assert torch.equal(scores.logits, of_two.logits)
    assert not torch.equal(scores.logits, everything.logits)
    assert accuracies[1].top1.value == of_two.accuracy
    assert accuracies[3].top1.value == everything.accuracy


@pytest.mark.parametrize("frames", [None, 4], ids=["images", "events"])
def test_without_attention_over_time_t_steps_are_the_readout_of_the_first_t(
    frames: int | None,
) -> None:
    with made_up_part("add", frames=frames, clips=4) as opened:
        streams = []
        handle = opened.model.readout.register_forward_pre_hook(lambda _, x: streams.append(x[:2]))
        opened.scores()
        handle.remove()
        audio, visual = streams[0]
        for steps in (1, 2, 3):
            mean = token_and_time_mean(audio[:steps]) + token_and_time_mean(visual[:steps])
            with running_for(opened.model, steps) as change, torch.inference_mode():
                torch.testing.assert_close(
                    opened.scores(change=change).logits, opened.model.readout.head(mean)
                )


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (4, 4), (16, 16), (17, 16), (300, 16)])
def test_many_steps_are_measured_at_sixteen_numbers(steps: int, count: int) -> None:
    with made_up_part(clips=1, steps=steps) as opened:
        numbers = numbers_of_steps(opened.model)
    assert len(numbers) == count
    assert (numbers[0], numbers[-1]) == (1, steps)
    assert all(before < after for before, after in pairwise(numbers))


def test_shapley_values_add_up_to_the_accuracy_that_both_modalities_add() -> None:
    shares = shapley(neither=0.2, audio=0.5, visual=0.3, both=0.9)
    assert shares.audio == pytest.approx(((0.5 - 0.2) + (0.9 - 0.3)) / 2)
    assert shares.audio + shares.visual == pytest.approx(0.9 - 0.2)


@pytest.mark.parametrize("method", ["s-cmrl", "cmci"])
def test_a_missing_modality_is_zeros_at_the_input(method: str) -> None:
    with made_up_part(method) as opened:
        clean = opened.scores()
        found = contribution(opened, clean, NoProgress())
        kept = {}
        for audio in (0, 1):
            for visual in (0, 1):

                def change(a, v, _, audio=audio, visual=visual):
                    return (
                        a if audio else torch.zeros_like(a),
                        v if visual else torch.zeros_like(v),
                    )

                kept[audio, visual] = opened.scores(change=change).accuracy
    assert found == shapley(
        neither=kept[0, 0], audio=kept[1, 0], visual=kept[0, 1], both=kept[1, 1]
    )
