"""Whether the plugins that a run needs are here, and are those of the training."""

import shlex
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from avsnn.errors import PluginWarning, UserError
from avsnn.installed import installed_version
from avsnn.pipeline.plugin_file import PluginFacts
from avsnn.pipeline.runs.plugin import (
    REGISTRIES,
    copies,
    file_of,
    plugin_of,
    value_of,
)

# The setting whose entry decides what a network answers.
METHOD = "model.method"


def recorded_plugins(values: Any) -> dict[str, PluginFacts]:
    """Return the plugins that ``config.yaml`` names, by the setting that chooses their entry.

    Args:
        values: the content of the file, which nobody has checked; what is no record is left out.
    """
    found = {}
    for setting, record in _records(values).items():
        try:
            found[setting] = PluginFacts.model_validate(record)
        except ValidationError:
            continue
    return {setting: found[setting] for setting in REGISTRIES if setting in found}


def with_present_names(values: Any) -> Any:
    """Return the content of ``config.yaml`` with ``plugins`` in place of the former ``plugin``."""
    if not isinstance(values, dict) or "plugin" not in values:
        return values
    rest = {key: value for key, value in values.items() if key != "plugin"}
    return {**rest, "plugins": _records(values)}


def require_known_plugins(values: Any, folder: Path) -> None:
    """Refuse a run whose method, or another entry of a registry, is not there.

    Another version of the run's package is a `PluginWarning`.

    Args:
        values: the content of ``config.yaml``, which nobody has checked yet.
        folder: the run folder.

    Raises:
        UserError: there is no such entry, or its package has a fault; the sentence says how to get
            the entry.
    """
    recorded = recorded_plugins(values)
    for setting, registry in REGISTRIES.items():
        name: Any = values.get("settings") if isinstance(values, dict) else None
        for part in setting.split("."):
            name = name.get(part) if isinstance(name, dict) else None
        if not isinstance(name, str):
            continue
        facts = recorded.get(setting)
        if name not in registry:
            raise UserError(_missing(setting, name, facts, folder, recorded))
        try:
            registry.require(name)
        except ValueError as error:
            raise UserError(f"{folder} needs the {registry.noun} {name!r}: {error}.") from None
        now = plugin_of(name, setting)
        if facts and now and facts.name == now.name and facts.version != now.version:
            _warn_once(
                f"{folder} was trained with {facts}, and {now.version} is installed: its results "
                f"may differ; '{_pip(facts)}' restores the version."
            )


def require_same_method(
    settings: BaseModel, plugins: Mapping[str, PluginFacts], folder: Path
) -> None:
    """Refuse to use the weights of a run with another content of the plugin of its method.

    The same weights answer otherwise in another network, and nobody would see the difference. An
    entry that a Python program registered itself, without a plugin, is taken as it is. Surrogate
    gradients and strategies change the training alone, and not the answers.

    Args:
        settings: the settings of the run.
        plugins: the plugins that the run was trained with.
        folder: the run folder.

    Raises:
        UserError: the method came from another file or package, or from a file with another
            content.
    """
    name = value_of(settings, METHOD)
    now, facts = plugin_of(name, METHOD), plugins.get(METHOD)
    if now is None or (facts and facts.identity == now.identity):
        return
    here = file_of(METHOD, name) or now
    if facts is None:
        raise UserError(
            f"{folder} was trained with a method {name!r} of no plugin, and nobody knows whether "
            f"{here} holds the same method: train again with "
            f"{'--plugin' if now.is_file else 'the package'}."
        )
    if not facts.is_file or not now.is_file:
        advice = f"add --plugin {shlex.quote(facts.name)}" if facts.is_file else _install(facts)
        without = f" and leave out --plugin {here}" if now.is_file else ""
        raise UserError(
            f"{folder} was trained with the method {name!r} of {facts}, and {here} has another "
            f"method of this name: {advice}{without}."
        )
    raise UserError(
        f"{folder} was trained with another content of {facts.name} than {here} has now, and its "
        "weights belong to that content: undo the change, or train again."
        f"{_copy_named(folder, METHOD, plugins)}"
    )


def differing_plugins(
    there: Mapping[str, PluginFacts], here: Mapping[str, PluginFacts]
) -> list[str]:
    """Return what differs between the plugins of two runs; empty if their contents are the same."""
    differing = []
    for setting in REGISTRIES:
        one, other = there.get(setting), here.get(setting)
        if (one and one.identity) == (other and other.identity):
            continue
        if one is None or other is None:
            differing.append(f"only the run {'there' if one else 'here'} has {one or other}")
        elif one.is_file and other.is_file:
            differing.append(
                f"the plugin {other.name} has another content than the run was started with"
            )
        else:
            differing.append(f"{one} there, {other} here")
    return differing


@cache
def _warn_once(sentence: str) -> None:
    # A command reads a run several times, and other packages make Python forget what it has shown.
    warnings.warn(sentence, PluginWarning, stacklevel=3)


def _records(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        return {}
    # Earlier versions recorded the file of the method alone.
    former = {"model.method": values["plugin"]} if values.get("plugin") else {}
    records = values.get("plugins")
    return former | records if isinstance(records, dict) else former


def _missing(
    setting: str,
    name: str,
    facts: PluginFacts | None,
    folder: Path,
    recorded: Mapping[str, PluginFacts],
) -> str:
    """Return the sentence for an entry of a registry that is not there."""
    noun = REGISTRIES[setting].noun
    if facts is None:
        return (
            f"{folder} was trained with the {noun} {name!r}, which is no {noun} of this version "
            f"of avsnn; there are: {', '.join(REGISTRIES[setting])}. If a file of your own holds "
            f"the {noun}, add --plugin FILE."
        )
    if facts.is_file:
        return (
            f"{folder} was trained with the {noun} {name!r} of {facts}: add --plugin "
            f"{shlex.quote(facts.name)} to the command (in Python, import the file first)."
            f"{_copy_named(folder, setting, recorded)}"
        )
    found = installed_version(facts.name)
    if found is None:
        reason = "which is not installed"
    else:
        reason = f"and the installed version {found} has no such {noun}"
    return f"{folder} needs the {noun} {name!r} of {facts}, {reason}: {_pip(facts)}"


def _install(facts: PluginFacts) -> str:
    return f"install its package ({_pip(facts)})"


def _pip(facts: PluginFacts) -> str:
    return shlex.join(["pip", "install", f"{facts.name}=={facts.version}"])


def _copy_named(folder: Path, setting: str, plugins: Mapping[str, PluginFacts]) -> str:
    """Return a sentence that names the copy in a run folder; empty without a copy."""
    digest = plugins[setting].sha256
    names = [name for of, name in copies(plugins).items() if plugins[of].sha256 == digest]
    copy = folder / names[0]
    if not copy.is_file():
        return ""
    word = shlex.quote(str(copy))
    return f" The run keeps a copy of the file: read {copy}, then give --plugin {word}."
