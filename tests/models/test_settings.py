"""Which settings are accepted, and which settings are refused."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from avsnn.models.zoo import METHODS, ModelSettings, build


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"method": "cmci", "alignment": True}, "no cross-modal residuals to align"),
        ({"method": "add", "alignment": True}, "no cross-modal residuals to align"),
        ({"method": "cmci", "fuse": "concat"}, "joins its streams in its own way"),
        ({"channels": 40}, "40 channels do not split into 16 heads"),
        ({"channels": 12, "heads": 4}, "multiple of 8, not 12"),
        ({"method": "nonesuch"}, "no method 'nonesuch'; there are: s-cmrl"),
        ({"thresold": 0.5}, "thresold"),
    ],
)
def test_impossible_settings_are_refused(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        ModelSettings(**fields)


def test_settings_changed_behind_the_validator_are_refused_when_built():
    settings = ModelSettings().model_copy(update={"method": "cmci"})
    with pytest.raises(ValueError, match="no cross-modal residuals") as caught:
        build(settings, classes=6)
    assert "\n" not in str(caught.value)


def test_settings_survive_a_round_trip():
    for method in METHODS:
        settings = ModelSettings(method=method)
        assert settings.alignment == (method in ("s-cmrl", "gated"))
        assert ModelSettings(**settings.model_dump()) == settings


def test_settings_accept_a_method_as_soon_as_the_method_is_registered(monkeypatch):
    monkeypatch.setitem(METHODS, "same-as-s-cmrl", METHODS["s-cmrl"])
    assert ModelSettings(method="same-as-s-cmrl").alignment


def test_the_registry_is_full_for_a_caller_that_imports_only_the_settings():
    code = "from avsnn.models.settings import ModelSettings; print(ModelSettings().method)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "s-cmrl"
