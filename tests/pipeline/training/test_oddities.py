import pytest

from avsnn.pipeline.experiments.presets import load_presets, preset_names
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training.oddities import oddities


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["epochs=5"], ["optimizer.warmup_epochs is 5 and epochs is 5", "warmup_epochs=0"]),
        (
            ["optimizer.base_lr=1e-4"],
            ["optimizer.min_lr is 1e-05", "base_lr 0.0001 * batch_size 32"],
        ),
        (["optimizer.warmup_lr=1"], ["optimizer.warmup_lr is 1, above the peak"]),
        (
            ["data.audio=growing", "model.method=visual"],
            ["data.audio is growing", "not read the audi"],
        ),
        (["data.frames=per-step", "model.method=audio"], ["does not read the frames"]),
        (["data.augment.noise_in_evaluation=true"], ["noise_snr is unset: no noise is added"]),
    ],
)
def test_settings_that_make_little_sense_together_are_named_with_their_values(
    words: list[str], parts: list[str]
) -> None:
    (sentence,) = oddities(
        build_settings(TrainSettings, load_presets("demo", []), words), steps_per_epoch=20
    )
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_is_odd(name: str) -> None:
    for dataset in ("demo", "crema-d"):
        assert not oddities(
            build_settings(TrainSettings, load_presets(dataset, [name]), ()), steps_per_epoch=20
        )


def test_so_few_clips_that_a_training_makes_few_steps_are_named_with_a_smaller_batch() -> None:
    settings = build_settings(TrainSettings, load_presets("mine", ["small"]), ())
    (sentence,) = oddities(settings, steps_per_epoch=1)
    assert "25 steps in 25 epochs" in sentence
    assert "--set batch_size=4" in sentence
    assert not oddities(settings, steps_per_epoch=2)
