"""Whole measurements, on networks whose answers are known."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from avsnn.models.zoo import ModelSettings, build
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.evaluation.intervals import Resampling
from avsnn.pipeline.evaluation.robustness.conditions import (
    Clean,
    Condition,
    Missing,
    Noisy,
    Swapped,
    conditions,
)
from avsnn.pipeline.evaluation.robustness.inputs import read_inputs
from avsnn.pipeline.evaluation.robustness.measure import answers_under, measure_robustness
from avsnn.pipeline.evaluation.robustness.noise import LEVELS
from avsnn.pipeline.inference.open_part import OpenPart
from avsnn.pipeline.loading.augment import MEAN, STD
from avsnn.pipeline.runs.config import make_config
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training.options import RunOptions
from avsnn.pipeline.training.train import train
from tests.event_data import write_event_data
from tests.pipeline.evaluation.robustness.conftest import (
    CPU,
    Draws,
    Recognises,
    measured,
    open_changed,
)
from tests.pipeline.evaluation.robustness.test_noise import snr

Modality = Literal["audio", "visual"]
EVERYTHING = {"hears": True, "sees": True, "noise_in_evaluation": True, "classes": 6}


def inputs_of(opened: OpenPart, wanted: list[Condition]) -> dict[Condition, list[Tensor]]:
    """Return audio and visual input of all clips of a part under each condition."""
    batches = list(read_inputs(opened, wanted, np.roll(opened.rows, 1)))
    axis = batches[0].audio.dim() - 4
    return {
        condition: [
            torch.cat(parts, axis)
            for parts in zip(*(inputs.under(condition) for inputs in batches), strict=True)
        ]
        for condition in wanted
    }


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_a_network_that_reads_one_modality_follows_it_and_feels_nothing_of_the_other(
    opened: OpenPart, modality: Modality
) -> None:
    found = measured(opened, Recognises(opened, modality))
    curves = {curve.target: [point.top1.value for point in curve.points] for curve in found.curves}
    assert list(curves) == ["visual", "audio", "both"]
    other = "visual" if modality == "audio" else "audio"
    assert curves[other] == [1.0] * 8
    assert curves["both"] == curves[modality]
    assert found.swapped is not None
    assert getattr(found.swapped, f"follows_{modality}").value == 1
    assert getattr(found.swapped, f"follows_{other}").value == 0
    assert found.swapped.follows_neither.value == 0
    assert found.swapped.clips == found.clips == len(opened.rows)
    without = {(one.missing, one.filling): one.top1.value for one in found.missing}
    fillings = {"audio": ("zeros", "silence"), "visual": ("zeros", "grey")}
    assert [without[other, filling] for filling in fillings[other]] == [1.0, 1.0]
    # Without its only modality, the network gives one answer for all clips.
    counts = np.bincount(opened.loader.source.labels[torch.from_numpy(opened.rows)])
    for filling in fillings[modality]:
        assert without[modality, filling] in counts / counts.sum()
    assert (found.part, found.audio_noise, found.trained_with_noise) == ("test", "waveform", None)
    assert [point.snr for point in found.curves[0].points] == [None, *LEVELS]


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_a_network_of_one_modality_has_the_curve_of_this_modality_only(
    opened: OpenPart, modality: Modality
) -> None:
    model = build(ModelSettings(method=modality, channels=16), classes=6).eval()
    found = measured(opened, model)
    assert [curve.target for curve in found.curves] == [modality]
    assert (found.missing, found.swapped) == ([], None)
    assert found.audio_noise == ("waveform" if modality == "audio" else None)


def test_the_inputs_are_what_the_conditions_say(opened: OpenPart) -> None:
    wanted = conditions(has_events=False, **EVERYTHING)
    inputs = inputs_of(opened, wanted)
    audio, frames = inputs[Clean()]
    for condition, (changed_audio, changed_frames) in inputs.items():
        assert changed_audio.shape == audio.shape
        assert changed_frames.shape == frames.shape
        if isinstance(condition, Noisy):
            assert torch.equal(changed_audio, audio) is not condition.has_noisy_audio
            assert torch.equal(changed_frames, frames) is not condition.has_noisy_frames
            for clip, noisy in zip(frames.numpy(), changed_frames.numpy(), strict=True):
                if condition.has_noisy_frames:
                    assert snr(clip, noisy) == pytest.approx(condition.snr, abs=0.1)
    assert torch.equal(inputs[Swapped()][0], audio.roll(1, 0))
    assert torch.equal(inputs[Swapped()][1], frames)
    assert not inputs[Missing("audio", "zeros")][0].any()
    assert not inputs[Missing("visual", "zeros")][1].any()
    silence, grey = inputs[Missing("audio", "silence")][0], inputs[Missing("visual", "grey")][1]
    torch.testing.assert_close(silence, torch.full_like(silence, np.log(1e-7)), rtol=0, atol=1e-4)
    level = (128 / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    expected = level.view(3, 1, 1).expand(grey.shape)
    torch.testing.assert_close(grey, expected, rtol=0, atol=1e-5)


def test_both_inputs_have_the_noise_that_each_has_alone(opened: OpenPart) -> None:
    inputs = inputs_of(opened, [Noisy("both", 5), Noisy("audio", 5), Noisy("visual", 5)])
    assert torch.equal(inputs[Noisy("both", 5)][0], inputs[Noisy("audio", 5)][0])
    assert torch.equal(inputs[Noisy("both", 5)][1], inputs[Noisy("visual", 5)][1])


def test_the_inputs_depend_on_no_batch_size_and_on_no_order(
    small_run: Path, opened: OpenPart
) -> None:
    wanted = conditions(has_events=False, **EVERYTHING)
    before = inputs_of(opened, wanted)
    with open_changed(small_run, batch_size=5) as part:
        after = inputs_of(part, wanted)
        backward = inputs_of(part._replace(rows=part.rows[::-1].copy()), wanted)
    for condition in wanted:
        for one, other, reverse in zip(
            before[condition], after[condition], backward[condition], strict=True
        ):
            assert torch.equal(one, other)
            if not isinstance(condition, Swapped):
                assert torch.equal(one, reverse.flip(0))


def test_two_measurements_are_equal_and_the_progress_is_told_of_every_answer(
    opened: OpenPart,
) -> None:
    class Counter(NoProgress):
        total = done = 0

        def start(self, title: str, total: int, unit: str) -> None:
            self.total = total

        def advance(self, count: int = 1, note: str = "") -> None:
            self.done += count

    first, counter = measured(opened), Counter()
    second = measure_robustness(
        opened,
        opened.scores(),
        Resampling(opened.keys),
        fingerprint="f",
        progress=counter,
    )
    assert first == second
    assert counter.done == counter.total == 26 * len(opened.rows)


def test_the_clean_point_has_no_noise_where_the_evaluation_has_noise(small_run: Path) -> None:
    noise = {"noise_snr": -60.0, "noise_in_evaluation": True}
    with open_changed(small_run, data=noise) as opened:
        model = Recognises(opened, "visual")
        assert opened._replace(model=model).scores().accuracy < 1
        found = measured(opened, model)
    assert found.trained_with_noise == -60
    assert [curve.points[0].top1.value for curve in found.curves] == [1, 1, 1]
    assert found.curves[1].points[-1].top1.value == 1


def test_a_network_that_draws_numbers_draws_the_numbers_of_the_evaluation(
    small_run: Path,
) -> None:
    with open_changed(small_run, batch_size=5) as part:
        opened = part._replace(model=Draws())
        clean = opened.scores().logits.argmax(1).numpy()
        wanted = [Noisy("visual", 0.0), Missing("audio", "zeros"), Clean()]
        answers = answers_under(opened, wanted, opened.rows, NoProgress())
    assert all(np.array_equal(answers[condition], clean) for condition in wanted)


@pytest.fixture(scope="module")
def event_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on event frames of 3 time steps and 12 x 12 px."""
    folder = tmp_path_factory.mktemp("events")
    root = write_event_data(
        folder / "data", dataset="demo-events", frames=(3, 2, 12, 12), audio=(3, 1, 4, 4)
    )
    words = [
        *("model.patch_split=shallow", "model.channels=16", "model.steps=3", "data.size=12"),
        *("epochs=1", "batch_size=16", "selection=last", "optimizer.warmup_epochs=0"),
    ]
    config = make_config("demo-events", build_settings(TrainSettings, (), words), root=root)
    options = RunOptions(CPU, resume=False, workers=0, save_every=1)
    run = folder / "run"
    train(config, folder=run, options=options, progress=NoProgress(), say=lambda _: None)
    return run


@pytest.fixture
def opened_events(event_run: Path) -> Iterator[OpenPart]:
    """The test part of a run on event frames."""
    with open_changed(event_run) as part:
        yield part


def test_event_frames_have_noise_on_the_inputs_of_the_network(opened_events: OpenPart) -> None:
    inputs = inputs_of(opened_events, conditions(has_events=True, **EVERYTHING))
    clean = inputs[Clean()]
    for condition, changed in inputs.items():
        if not isinstance(condition, Noisy):
            continue
        is_noisy = [condition.has_noisy_audio, condition.has_noisy_frames]
        for noisy, before, after in zip(is_noisy, clean, changed, strict=True):
            assert torch.equal(before, after) is not noisy
            for clip in range(before.shape[1]) if noisy else ():
                level = snr(before[:, clip].numpy(), after[:, clip].numpy())
                assert level == pytest.approx(condition.snr, abs=0.1)
    assert not inputs[Missing("audio", "no events")][0].any()
    empty = inputs[Missing("visual", "no events")][1]
    torch.testing.assert_close(empty, torch.full_like(empty, -0.1307 / 0.3081))


def test_the_record_of_event_frames_says_where_the_noise_is(opened_events: OpenPart) -> None:
    found = measured(opened_events, Recognises(opened_events, "audio"))
    assert (found.audio_noise, found.prepared_with_noise) == ("event frames", None)
    assert [curve.target for curve in found.curves] == ["visual", "audio", "both"]
    assert found.swapped is not None
    assert found.swapped.follows_audio.value == 1
    assert [(one.missing, one.filling) for one in found.missing] == [
        *(("audio", "zeros"), ("audio", "no events")),
        *(("visual", "zeros"), ("visual", "no events")),
    ]
