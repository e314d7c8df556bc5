from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from avsnn.errors import UserError
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.experiments.presets import FOLDER, load_presets, preset_names
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings, flatten, parse_yaml
from avsnn.suggestions import nearest, there_are


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_makes_settings(name: str) -> None:
    settings = build_settings(TrainSettings, load_presets("crema-d", [name]), ())
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
        ("epochs", ["epochs", "KEY=VALUE"]),
        ("optimizer.lr=3", ["optimizer.lr", "3", "optimizer.base_lr"]),
        ("modle.alpha=3", ["modle.alpha", "3", "did you mean model.alpha?", "model, data"]),
        ("epochs=0", ["epochs", "0", "greater than 0"]),
        ("selection=best", ["selection", "best", "'val', 'test' or 'last'"]),
        ("model.method=cnn", ["model.method", "cnn", "s-cmrl"]),
        ("model.alpha=-1", ["model.alpha", "-1", "greater than or equal to 0"]),
        ("model.heads=3", ["model", "3 heads"]),
        ("epochs.more=1", ["epochs"]),
        ("epochs={more: 1}", ["epochs", "must be a whole number"]),
        ("model=3", ["model cannot be 3", "a group of settings"]),
        ("model.method=scmrl", ["did you mean s-cmrl?"]),
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


@pytest.mark.parametrize(
    ("word", "right"),
    [
        *(("epoch=3", "epochs"), ("method=add", "model.method"), ("model.metod=a", "model.method")),
        *(("model.T=8", "model.steps"), ("T=8", "model.steps")),
        *(("lr=0.1", "optimizer.base_lr"), ("optimizer.lr=0.1", "optimizer.base_lr")),
        *(("batch-size=8", "batch_size"), ("optimizer.seed=1", "seed")),
    ],
)
def test_the_right_key_is_named_for_a_wrong_one(word: str, right: str) -> None:
    with pytest.raises(UserError, match=rf"; did you mean {right}\? there are(: | \d+, such as )"):
        build_settings(TrainSettings, (), [word])


def test_a_mapping_after_set_changes_what_it_names_and_leaves_the_rest_of_the_group() -> None:
    preset = load_presets("demo", [])
    plain = flatten(build_settings(TrainSettings, preset, ()))
    by_group = build_settings(TrainSettings, preset, ["model={method: audio, steps: 2}", "seed=3"])
    by_key = ["model.method=audio", "model.steps=2", "seed=3"]
    assert by_group == build_settings(TrainSettings, preset, by_key)
    assert flatten(by_group)["model.channels"] == plain["model.channels"] != 256


def test_the_nearest_of_many_names_comes_first_and_few_names_keep_their_order() -> None:
    assert there_are("beta", ["alpha", "beta", "gamma"]) == "there are: alpha, beta, gamma"
    many = [f"name-{letter}" for letter in "abcdefghijklmnop"]
    assert there_are("Name_K", many).startswith("there are 16, such as name-k, name-")
    assert there_are("Name_K", many).count("name-") < 10


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("demo", "demo-s-cmrl-seed42-4d34cab2"),
        ("prepair", "prepare"),
        ("dem", "demo"),
        ("Urban_Sound8K", "urbansound8k-av"),
        ("zebra", ""),
    ],
)
def test_the_nearest_name_is_found_by_its_beginning_and_its_first_letter(
    word: str, right: str
) -> None:
    names = ["repair", "prepare", "urbansound8k-av", "demo-s-cmrl-seed42-4d34cab2"]
    assert nearest(word, [*names, "demo"] if word == "dem" else names) == right


@given(st.text())
def test_no_text_after_set_ends_in_a_traceback(word: str) -> None:
    with suppress(UserError):
        build_settings(TrainSettings, (), [word])


# Fingerprints of the default settings; data and runs that exist are found by these values.
TRAIN_DEFAULTS = "58b5ccba28f50a9f1a5b4d8a84ba027e3323fd4e0fdab32fe1d9c8b07c43eed8"
PREPARE_DEFAULTS = "0de565d513596fc11efdf4fa668bd05bdcc98dc7f116c9e5945bfe16ad2dc0eb"

NUMBERS = [
    *("optimizer.base_lr", "optimizer.min_lr", "optimizer.warmup_lr", "optimizer.weight_decay"),
    *("optimizer.clip_norm", "optimizer.ema_decay", "data.augment.noise_snr"),
    *("data.augment.min_area", "data.augment.max_ratio", "data.augment.test_crop"),
    "data.augment.padding",
    *("loss.label_smoothing", "loss.temperature", "loss.alignment_weight", "model.alpha"),
    *("model.tau", "model.threshold", "model.surrogate_slope", "data.size", "batch_size", "epochs"),
    *("optimizer.accumulate", "optimizer.warmup_epochs", "model.channels", "model.steps"),
]


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1.0e+30", "-1.0e+30"])
@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_that_are_not_finite_or_absurd_are_refused_with_the_allowed_range(
    key: str, value: str
) -> None:
    with pytest.raises(UserError, match=rf"setting {key} cannot be .* \(allowed: .*\)\."):
        build_settings(TrainSettings, (), [f"{key}={value}"])


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1.0e+5", "-1.0e+5"])
@pytest.mark.parametrize(
    "key",
    [
        *("audio.noise_snr", "audio.hop", "audio.n_fft", "audio.size", "audio.sample_rate"),
        *("audio.n_mels", "frames.shorter_side", "extract.clips_per_shard", "limit"),
    ],
)
def test_numbers_of_prepare_that_are_not_finite_or_absurd_are_refused(key: str, value: str) -> None:
    value = value.replace("e+5", "e+20") if value.startswith("1") else value
    with pytest.raises(UserError, match=rf"setting {key} cannot be .* \(allowed: .*\)\."):
        build_settings(PrepareSettings, (), [f"{key}={value}"])


def test_the_defaults_and_their_json_are_the_published_values() -> None:
    facts = TrainSettings().model_dump(mode="json")
    # These settings came later than the recorded fingerprint. No published method has settings of
    # its own, the published order mixes all clips, the published statistics are the moving ones,
    # and published runs train on all clips, without a balance of the modalities, and see one frame
    # in all time steps.
    assert facts["model"].pop("custom") == {}
    assert facts["data"].pop("shuffle_window") is None
    assert facts["data"].pop("clips_per_class") is None
    assert (facts["data"].pop("frames"), facts["data"].pop("audio")) == ("published", "whole")
    assert facts["optimizer"].pop("recalibrate_norms") is False
    balance = facts.pop("balance")
    assert (balance["strategy"], balance["modality_dropout"]) == ("none", 0)
    assert fingerprint(facts) == TRAIN_DEFAULTS
    facts = PrepareSettings().model_dump(mode="json")
    # How large a shard is was not published.
    extract = facts["extract"]
    assert (extract.pop("shard_bytes"), extract["clips_per_shard"]) == (256_000_000, None)
    extract["clips_per_shard"] = 128
    assert fingerprint(facts) == PREPARE_DEFAULTS


def test_spaces_around_a_key_do_not_count_and_a_colon_is_answered_with_an_equals_sign() -> None:
    assert build_settings(TrainSettings, (), ["epochs = 3"]).epochs == 3
    with pytest.raises(UserError, match=r"KEY=VALUE; write --set model\.alpha=0\.5\.$"):
        build_settings(TrainSettings, (), ["model.alpha: 0.5"])


def test_a_key_that_is_given_twice_and_bytes_that_are_no_text_are_named() -> None:
    with pytest.raises(ValueError, match="the key 'epochs' is given twice in line 3"):
        parse_yaml(b"epochs: 3\nseed: 1\nepochs: 4\n")
    with pytest.raises(ValueError, match="it is not text in UTF-8"):
        parse_yaml("epochs: 3".encode("utf-16"))
    assert parse_yaml(b"a: {x: 1}\nb: {x: 2}\n'1': a\n1: b\n")["b"] == {"x": 2}


@pytest.mark.parametrize("value", ["[" * 5000, "&a [*a]", "9" * 5000, '!!int ""', "{a: 1, a: 2}"])
def test_a_value_that_is_no_plain_yaml_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="is not valid YAML"):
        build_settings(TrainSettings, (), [f"epochs={value}"])


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *(("seed=010", 10), ("seed=08", 8), ("seed=1_000", 1000), ("seed=0", 0), ("seed=+7", 7)),
        *(("seed=7.0", 7), ("optimizer.base_lr=1e-3", 1e-3), ("optimizer.base_lr=.5", 0.5)),
        *(("data.split=010", "010"), ("data.split=no", "no"), ("data.split=on", "on")),
        *(("data.split=1:30", "1:30"), ("data.split=2024-01-01", "2024-01-01")),
        *(("data.split=", None), ("data.split=null", None), ("data.split=~", None)),
        *(("model.detach_membrane=off", False), ("model.detach_membrane=yes", True)),
        *(("model.detach_membrane=FALSE", False), ("model.detach_membrane=true", True)),
    ],
)
def test_a_value_after_set_means_what_a_person_reads(word: str, value: object) -> None:
    key = word.partition("=")[0]
    assert flatten(build_settings(TrainSettings, (), [word]))[key] == value


@pytest.mark.parametrize("value", ["0x10", "0b11", "0o17", "1:30", "on", "yes", "true", "off"])
@pytest.mark.parametrize("key", ["seed", "optimizer.base_lr", "optimizer.clip_norm"])
def test_other_notations_of_numbers_and_truth_values_are_no_numbers(key: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"(?i)setting {key} cannot be .*{value}"):
        build_settings(TrainSettings, (), [f"{key}={value}"])


@given(st.text() | st.from_regex(r"[-+]?[0-9_:.xobe-]{1,8}", fullmatch=True))
def test_text_that_yaml_wrote_is_read_as_the_same_text(text: str) -> None:
    with suppress(ValueError):
        assert parse_yaml(yaml.safe_dump({"name": text})) == {"name": text}
