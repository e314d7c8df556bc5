"""Plugins: files of the user, and installed packages, that add methods, surrogates, strategies.

avsnn runs a file only if the user names the file. A run keeps a copy of its file, and avsnn never
runs the copy by itself, because a run folder may come from anyone. The registries import a package
when the name of one of its entries is asked for (``avsnn/registry.py``).
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from avsnn.errors import RunError, UserError
from avsnn.models.balance import STRATEGIES
from avsnn.models.registry import METHODS, MethodError
from avsnn.models.surrogate import SURROGATES
from avsnn.pipeline.engine.atomic_files import write_if_changed
from avsnn.pipeline.plugin_file import (
    PluginFacts,
    fault_of,
    first_line,
    line_of,
    read_plugin,
    run_plugin,
)
from avsnn.registry import Registry

# The settings that choose an entry of a registry by its name.
REGISTRIES: dict[str, Registry[Any]] = {
    "model.method": METHODS,
    "model.surrogate": SURROGATES,
    "balance.strategy": STRATEGIES,
}

# The name of the copy in a run folder begins so.
COPY = "plugin"

FORM = (
    "a plugin is a Python file with METHODS['NAME'] = TwoStreams(CLASS), or with a surrogate or a "
    "strategy, as docs/add-a-fusion-method.md shows"
)


class _File(NamedTuple):
    """A file that was run in this process."""

    path: Path
    content: bytes
    facts: PluginFacts


# The file of each entry that came from a file, by the setting that chooses the entry, and the name.
_files: dict[tuple[str, str], _File] = {}


def load_plugins(paths: Sequence[Path]) -> None:
    """Run the files, which add their methods, surrogates and strategies to the registries.

    Raises:
        UserError: a file cannot be read, the code has a fault, registers nothing, or registers
            something under a name that is taken. The registries then are as they were before.
    """
    for path in paths:
        _load(path)


def plugin_of(name: str, setting: str = "model.method") -> PluginFacts | None:
    """Return the facts about the plugin of an entry of a registry; None if it came from no plugin.

    Args:
        name: name of the entry.
        setting: the setting that chooses the entry (``REGISTRIES``).
    """
    file = _files.get((setting, name))
    if file is not None:
        return file.facts
    offer = REGISTRIES[setting].offers.get(name)
    return offer and PluginFacts(kind="package", name=offer.package, version=offer.version)


def plugins_of(settings: BaseModel) -> dict[str, PluginFacts]:
    """Return the facts about the plugins that the settings of a training use, by setting."""
    chosen = {key: value_of(settings, key) for key in REGISTRIES}
    found = {key: plugin_of(name, key) for key, name in chosen.items()}
    return {key: facts for key, facts in found.items() if facts is not None}


def file_of(setting: str, name: str) -> Path | None:
    """Return the path of the file that an entry of a registry came from; None if no file."""
    file = _files.get((setting, name))
    return file and file.path


def save_copies(folder: Path, plugins: Mapping[str, PluginFacts]) -> None:
    """Keep a copy of every file of a run in its folder."""
    for setting, name in copies(plugins).items():
        digest = plugins[setting].sha256
        file = next(file for file in _files.values() if file.facts.sha256 == digest)
        write_if_changed(folder / name, file.content)


def copies(plugins: Mapping[str, PluginFacts]) -> dict[str, str]:
    """Return the name of the copy of every file in a run folder, by the setting.

    A file that holds several entries has one copy, under the first setting.
    """
    names: dict[str, str] = {}
    kept: set[str | None] = {None}
    for setting in (setting for setting in REGISTRIES if setting in plugins):
        if plugins[setting].sha256 not in kept:
            kept.add(plugins[setting].sha256)
            # The method's copy has the name of earlier versions.
            of = "" if setting == "model.method" else f"-{setting.rpartition('.')[2]}"
            names[setting] = f"{COPY}{of}.py"
    return names


@contextmanager
def plugin_faults_said(method: str, *, elsewhere: bool = False) -> Iterator[None]:
    """Turn an exception of the code of a plugin into a sentence with file and line.

    Args:
        method: the method that computes.
        elsewhere: whether an exception outside the lines of plugins is the fault of the method, if
            the method came from a plugin.

    Raises:
        UserError: the code of a plugin raised an exception.
    """
    try:
        yield
    except (UserError, RunError, MemoryError):
        raise
    except Exception as error:
        for place in _places():
            if line_of(error, place)[1]:
                raise _fault(place, error) from error
        if elsewhere and (of_method := _place_of(method)):
            raise _fault(of_method, error) from error
        raise


def _places() -> Iterator[Path]:
    """Yield the files and the folders of all plugins that this process runs."""
    yield from {file.path for file in _files.values()}
    for registry in REGISTRIES.values():
        yield from {place for offer in registry.offers.values() if (place := offer.place)}


def _place_of(method: str) -> Path | None:
    """Return the file or the folder of the code of a method; None if the method is no plugin's."""
    offer = METHODS.offers.get(method)
    return file_of("model.method", method) or (offer and offer.place)


def value_of(settings: BaseModel, key: str) -> str:
    """Return the value of a setting by a key such as ``model.method``."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return str(value)


def _load(path: Path) -> None:
    content = read_plugin(path, FORM)
    digest = hashlib.sha256(content).hexdigest()
    if any(file.facts.sha256 == digest for file in _files.values()):
        return
    added = run_plugin(path, content, REGISTRIES)
    if not added:
        raise UserError(f"{path} registers no method: {FORM}.")
    facts = PluginFacts(name=path.name, sha256=digest)
    _files.update(dict.fromkeys(added, _File(path, content, facts)))


def _fault(place: Path, error: BaseException) -> UserError:
    """Return the sentence for an exception of the code of a plugin."""
    if isinstance(error, MethodError) and not line_of(error, place)[1]:
        # The sentence about the shapes of the streams names file and line itself.
        return UserError(f"{first_line(error)}.")
    return fault_of(place, error)
