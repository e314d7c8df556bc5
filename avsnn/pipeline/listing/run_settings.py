"""What is special about the settings of a run: a preset, and what differs from the preset."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from avsnn.errors import UserError
from avsnn.pipeline.experiments.presets import load_preset, load_presets, preset_names
from avsnn.pipeline.runs.config import CUDA_GRAPH
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings, flatten, flatten_tree

# A list of runs shows the first three in columns of their own; a CUDA graph changes no result.
NOT_COMPARED = {"model.method", "seed", "epochs", f"compute.{CUDA_GRAPH}"}


class _Expected(NamedTuple):
    """The settings of a run that differs in nothing.

    Attributes:
        preset: name of a preset over the preset of the data set; empty for the latter alone.
        settings: all settings, by keys such as ``optimizer.base_lr``.
        of_preset: the settings that the preset names.
    """

    preset: str
    settings: Mapping[str, Any]
    of_preset: Mapping[str, Any]


def describe_settings(
    tree: Mapping[Any, Any], *, dataset: str, method: str
) -> tuple[str, dict[str, Any]]:
    """Find the preset that explains most of the settings of a run, and what differs from it.

    Args:
        tree: the settings as ``config.yaml`` holds them; they may be of another version of avsnn.
        dataset: name of the data set, which may be unknown here.
        method: name of the method, which may be unknown here.

    Returns:
        the name of the preset, empty where none explains anything; and the settings that differ
        from this preset, from the preset of the data set and from the defaults, by their keys.
    """
    found = flatten_tree(tree)

    def differing(expected: _Expected) -> dict[str, Any]:
        # An earlier version had fewer settings; the missing settings had their defaults.
        return {
            key: value
            for key, value in found.items()
            if key not in NOT_COMPARED
            and (key not in expected.settings or value != expected.settings[key])
        }

    plain, *with_preset = _expected_settings(dataset, method)
    fitting = [
        expected
        for expected in with_preset
        if all(found.get(key) == value for key, value in expected.of_preset.items())
    ]
    best = min([plain, *fitting], key=lambda expected: len(differing(expected)))
    return best.preset, differing(best)


@lru_cache(maxsize=64)
def _expected_settings(dataset: str, method: str) -> tuple[_Expected, ...]:
    """Return the settings without a preset, then with each preset that fits the method."""
    try:
        own = load_presets(dataset, [])
    except UserError:
        # The data set is unknown here, and so is its preset.
        own = []
    of_method: dict[str, Any] = {"model": {"method": method}}
    try:
        plain = flatten(build_settings(TrainSettings, [*own, of_method], ()))
    except UserError:
        # The method is of a plugin or of another version.
        of_method = {}
        plain = flatten(build_settings(TrainSettings, own, ()))
    found = [_Expected("", plain, {})]
    for name in preset_names():
        preset = load_preset(name)
        try:
            settings = build_settings(TrainSettings, [*own, preset, of_method], ())
        except UserError:
            continue
        found.append(_Expected(name, flatten(settings), flatten_tree(preset)))
    return tuple(found)
