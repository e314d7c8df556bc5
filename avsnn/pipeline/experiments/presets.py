"""Presets: named settings, one YAML file for each name, in the folder ``presets``."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from avsnn.datasets_manifest import load
from avsnn.datasets_manifest import names as datasets
from avsnn.errors import UserError
from avsnn.pipeline.settings_overrides import (
    explain_mistake,
    is_mistake_of_one_value,
    parse_yaml,
)
from avsnn.suggestions import did_you_mean, there_are

FOLDER = Path(__file__).parent / "presets"

# A file of settings has some 100 lines; a larger file would take minutes to parse.
MAX_SETTINGS_BYTES = 1_000_000


@dataclass(frozen=True)
class Preset:
    """A preset as a person reads it.

    Attributes:
        name: name of the preset.
        summary: what the preset is for: the first sentence of the file.
        settings: the settings that the preset changes, as nested mappings.
        text: the YAML file.
    """

    name: str
    summary: str
    settings: dict[str, Any]
    text: str


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def describe_preset(name: str) -> Preset:
    """Return a preset with its text and its summary.

    Raises:
        UserError: there is no preset of this name.
    """
    known = preset_names()
    if name not in known:
        raise UserError(
            f"no preset is called {name!r}; {did_you_mean(name, known)}{there_are(name, known)}. "
            "'avsnn presets' lists all presets; a file of settings has a name that ends in .yaml."
        )
    text = (FOLDER / f"{name}.yaml").read_text()
    lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    summary, *_ = re.split(r"(?<=\.)\s", " ".join(lines), maxsplit=1)
    return Preset(name, summary, yaml.safe_load(text), text)


def is_yaml_name(word: str) -> bool:
    """Return whether a word is the name of a file of one's own, and no name of avsnn."""
    return word.endswith((".yaml", ".yml"))


def load_preset(name_or_path: str) -> dict[str, Any]:
    """Return the settings of a preset, or of a YAML file of settings.

    Args:
        name_or_path: name of a preset, or path of a file whose name ends in .yaml or .yml.

    Raises:
        UserError: there is no such preset or file, or the file holds no settings.
    """
    if name_or_path not in preset_names() and is_yaml_name(name_or_path):
        return _read_settings(Path(name_or_path))
    return describe_preset(name_or_path).settings


def load_presets(
    dataset: str, names: Sequence[str], *, config: Path | None = None
) -> list[dict[str, Any]]:
    """Return the presets that change the default settings, in the order in which they apply.

    Args:
        dataset: name of the data set; a preset of this name comes first. Where there is no such
            preset, the preset comes first that the YAML of the data set names.
        names: the presets, by name or as files, that the user asks for.
        config: a file that holds all settings of a training, and takes the place of the preset of
            the data set.

    Raises:
        UserError: there is no preset of such a name, a file holds no settings, or the YAML of the
            data set has a mistake.
    """
    first = _presets_of_data_set(dataset) if config is None else [_read_changes(config)]
    return [*first, *(load_preset(name) for name in names)]


def _presets_of_data_set(dataset: str) -> list[dict[str, Any]]:
    """Return the preset that has the name of a data set, or that the YAML of the data set names."""
    known = preset_names()
    if dataset in known:
        return [load_preset(dataset)]
    # Whoever trains on a data set that does not exist is told so when the data set is opened.
    named = load(dataset).preset if dataset in datasets() else None
    if named is None:
        return []
    if named not in known:
        raise UserError(
            f"{dataset}.yaml: preset: no preset is called {named!r}; {did_you_mean(named, known)}"
            f"{there_are(named, known)}."
        )
    return [load_preset(named)]


def _read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings; of ``config.yaml`` of a run, take the settings of the run.

    Raises:
        UserError: the file cannot be read, or a key or a value in the file is wrong. Values that
            do not go together may go together with other presets, and are no mistake here.
    """
    # This module imports torch, and the names of presets need not wait for torch.
    from avsnn.pipeline.runs.needed_plugins import require_known_plugins
    from avsnn.pipeline.runs.train_settings import TrainSettings

    try:
        if not path.is_file():
            inside = path / "config.yaml"
            near = (
                f"did you mean {inside}?" if inside.is_file() else "give a YAML file of settings."
            )
            raise UserError(f"{path} is no file; {near}")
        with path.open("rb") as file:
            content = file.read(MAX_SETTINGS_BYTES + 1)
        if len(content) > MAX_SETTINGS_BYTES:
            raise ValueError(f"it has more than {MAX_SETTINGS_BYTES:,} bytes")
        tree = parse_yaml(content)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"{path} is no YAML file of settings: {error}.") from None
    if isinstance(tree, dict) and isinstance(tree.get("settings"), dict):
        require_known_plugins(tree, path.parent if path.name == "config.yaml" else path)
        tree = tree["settings"]
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no settings; write lines such as 'epochs: 5'.")
    try:
        TrainSettings.model_validate(tree)
    except ValidationError as error:
        if is_mistake_of_one_value(error):
            raise UserError(f"{path}: {explain_mistake(TrainSettings, error)}") from None
    return tree


def _read_changes(path: Path) -> dict[str, Any]:
    """Return the settings of a file that differ from the defaults of the file's method.

    A run records all settings, also settings whose default depends on the method, such as
    ``model.alignment``. If such a default were fixed, ``--set model.method`` would contradict it.

    Raises:
        UserError: the file holds no settings, or its settings do not go together.
    """
    from avsnn.pipeline.runs.train_settings import TrainSettings

    tree = _read_settings(path)
    try:
        settings = TrainSettings.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{path}: {explain_mistake(TrainSettings, error)}") from None
    method = {"model": {"method": settings.model.method}}
    changes = _changes(settings.model_dump(), TrainSettings.model_validate(method).model_dump())
    changes.setdefault("model", {})["method"] = settings.model.method
    return changes


def _changes(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that differ from the usual values, as nested mappings."""
    changes: dict[str, Any] = {}
    for key, value in values.items():
        before = usual.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if below := _changes(value, before):
                changes[key] = below
        elif key not in usual or value != before:
            changes[key] = value
    return changes
