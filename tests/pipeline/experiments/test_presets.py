from pathlib import Path

import pytest
import yaml

from avsnn.errors import UserError
from avsnn.pipeline.experiments.presets import (
    describe_preset,
    load_preset,
    load_presets,
    preset_names,
)
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_in_one_sentence_what_it_is_for(name: str) -> None:
    preset = describe_preset(name)
    assert preset.summary.endswith(".")
    # With the name, the summary fits a line of 80 characters.
    assert len(preset.summary) <= 60
    assert preset.settings


def test_a_file_is_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {alpha: 0.25}\nepochs: 100\n")
    settings = build_settings(TrainSettings, load_presets("demo", ["healthy", str(file)]), ())
    assert (settings.model.alpha, settings.epochs) == (0.25, 100)
    assert settings.model.attention_threshold == 0.5
    assert settings.data.size == 64


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("helthy", ["did you mean healthy? there are", "avsnn presets"]),
        ("Weight_Attention", ["did you mean weight-attention?"]),
        ("CREMA-D", ["'CREMA-D'", "such as c"]),
        ("nowhere.yaml", ["nowhere.yaml is no file"]),
    ],
)
def test_an_unknown_preset_is_refused_with_the_nearest_name(name: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        load_preset(name)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("epochs: [", "no YAML file of settings"),
        ("- epochs: 3", "holds no settings"),
        ("", "holds no settings"),
        ("epoch: 3", "did you mean epochs?"),
        ("model: {alpha: -1}", "model.alpha cannot be -1"),
        ("model: 3", "model cannot be 3"),
        ("a: &a [*a]", "an alias is not allowed"),
        ("#" * 1_000_001, "bytes"),
    ],
)
def test_a_wrong_file_of_settings_is_named_with_its_mistake(
    tmp_path: Path, text: str, part: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    for wrong in (lambda: load_preset(str(file)), lambda: load_presets("demo", [], config=file)):
        with pytest.raises(UserError) as error:
            wrong()
        assert str(error.value).startswith(str(file))
        assert part in str(error.value)


def test_values_of_a_file_may_go_together_with_other_settings_only(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {channels: 24}\n")
    settings = build_settings(TrainSettings, [load_preset(str(file))], ["model.heads=4"])
    assert settings.model.channels == 24
    with pytest.raises(UserError, match="24 channels do not split"):
        load_presets("demo", [], config=file)


@pytest.mark.parametrize("words", [[], ["model.method=audio"], ["selection=test", "model.T=2"]])
@pytest.mark.parametrize("whole", [True, False])
def test_settings_that_a_run_recorded_make_the_same_settings(
    tmp_path: Path, words: list[str], whole: bool
) -> None:
    words = [word.replace("model.T", "model.steps") for word in words]
    settings = build_settings(TrainSettings, load_presets("demo", ["healthy"]), words)
    file = tmp_path / "config.yaml"
    values = settings.model_dump(mode="json")
    file.write_text(yaml.safe_dump({"dataset": "demo", "settings": values} if whole else values))
    assert build_settings(TrainSettings, load_presets("crema-d", [], config=file), ()) == settings


def test_another_method_can_be_laid_over_the_settings_of_a_run(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    recorded = build_settings(TrainSettings, load_presets("demo", []), ())
    file.write_text(yaml.safe_dump(recorded.model_dump(mode="json")))
    presets = load_presets("crema-d", ["add"], config=file)
    settings = build_settings(TrainSettings, presets, ["seed=3"])
    assert settings.model.method == "add"
    assert not settings.model.alignment
    assert (settings.seed, settings.epochs, settings.data.size) == (3, 20, 64)
