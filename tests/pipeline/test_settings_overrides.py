from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.errors import UserError
from avsnn.pipeline.experiments.presets import FOLDER, load_presets, preset_names
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings, flatten


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_makes_settings(name: str) -> None:
    settings = build_settings(TrainSettings, load_presets("any", [name]), ())
    assert (FOLDER / f"{name}.yaml").exists()
    assert settings.epochs > 0


def test_an_assignment_overrides_the_preset_and_leaves_the_rest() -> None:
    preset = load_presets("demo", [])
    plain = flatten(build_settings(TrainSettings, preset, ()))
    changed = flatten(build_settings(TrainSettings, preset, ["model.channels=64", "seed=7"]))
    assert {key for key in plain if plain[key] != changed[key]} == {"model.channels", "seed"}


def test_a_named_preset_overrides_the_preset_of_the_data_set() -> None:
    plain = flatten(build_settings(TrainSettings, load_presets("demo", []), ()))
    healthy = flatten(build_settings(TrainSettings, load_presets("demo", ["healthy"]), ()))
    assert healthy["model.attention_threshold"] == 0.5
    assert healthy["epochs"] == plain["epochs"] != TrainSettings().epochs


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("epochs", ["epochs", "key=value"]),
        ("optimizer.lr=3", ["optimizer.lr", "3", "optimizer.base_lr"]),
        ("modle.alpha=3", ["modle", "model, data"]),
        ("epochs=0", ["epochs", "0", "greater than 0"]),
        ("selection=best", ["selection", "best", "'val', 'test' or 'last'"]),
        ("model.method=cnn", ["model.method", "cnn", "s-cmrl"]),
        ("model.alpha=-1", ["model.alpha", "-1", "greater than or equal to 0"]),
        ("model.heads=3", ["model", "3 heads"]),
        ("epochs.more=1", ["epochs"]),
    ],
)
def test_a_bad_setting_is_refused_with_key_value_and_what_is_allowed(
    word: str, parts: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        build_settings(TrainSettings, [{"epochs": 3}], [word])
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert not sentence.endswith("..")
    for part in parts:
        assert part in sentence


@given(st.text())
def test_no_text_after_set_ends_in_a_traceback(word: str) -> None:
    with suppress(UserError):
        build_settings(TrainSettings, (), [word])
