"""Plugins: files of the user, and installed packages, that add methods, surrogates, strategies.

avsnn runs a file only if the user names the file. A run keeps a copy of its file, and avsnn never
runs the copy by itself, because a run folder may come from anyone. The registries import a package
when the name of one of its entries is asked for (``models/registry.py``).
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, Field, model_validator

from avsnn.errors import RunError, UserError
from avsnn.models.balance import STRATEGIES
from avsnn.models.registry import METHODS, MethodError, Registry, RegistryError
from avsnn.models.surrogate import SURROGATES
from avsnn.pipeline.engine.atomic_files import write_if_changed
from avsnn.suggestions import did_you_mean

# The settings that choose an entry of a registry by its name.
REGISTRIES: dict[str, Registry[Any]] = {
    "model.method": METHODS,
    "model.surrogate": SURROGATES,
    "balance.strategy": STRATEGIES,
}

# The name of the copy in a run folder begins so.
COPY = "plugin"

# A plugin is a file that a person writes; a larger file is something else.
MAX_BYTES = 5_000_000

FORM = (
    "a plugin is a Python file with METHODS['NAME'] = TwoStreams(CLASS), or with a surrogate or a "
    "strategy, as docs/add-a-fusion-method.md shows"
)


class PluginFacts(BaseModel):
    """What a run records of a plugin.

    Attributes:
        kind: whether the plugin is a file or an installed package.
        name: name of the file or of the package.
        sha256: SHA-256 of the content of a file, as hexadecimal digits; None of a package.
        version: version of a package; None of a file.
    """

    kind: Literal["file", "package"] = "file"
    name: str = Field(max_length=255)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    version: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!_-]{0,99}$")

    @model_validator(mode="after")
    def _has_what_its_kind_has(self) -> Self:
        if (self.sha256 if self.kind == "file" else self.version) is None:
            raise ValueError(f"a {self.kind} needs a {'sha256' if self.is_file else 'version'}")
        return self

    @property
    def is_file(self) -> bool:
        """Whether the plugin is a file."""
        return self.kind == "file"

    @property
    def identity(self) -> str:
        """What of a plugin belongs to the identity of a run.

        The version of a package is not part of the identity: a run goes on with another version.
        """
        return self.sha256 or f"package {self.name}"

    def __str__(self) -> str:
        """Return what a sentence calls the plugin."""
        return (
            f"the plugin {self.name}" if self.is_file else f"the package {self.name} {self.version}"
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
            if _line(error, place)[1]:
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
    content = _read(path)
    digest = hashlib.sha256(content).hexdigest()
    if any(file.facts.sha256 == digest for file in _files.values()):
        return
    # The name is no name of a module that anyone imports: a plugin may be called random.py.
    module = ModuleType(f"avsnn_plugin_{digest[:16]}")
    module.__file__ = str(path)
    before = {
        key: (dict(registry.data), dict(registry.offers), registry.protected)
        for key, registry in REGISTRIES.items()
    }
    for registry in REGISTRIES.values():
        registry.protect()
    sys.modules[module.__name__] = module
    try:
        # The bytes that were hashed are the code that runs. An import would also write a cache of
        # the code beside the file, and could read an old cache.
        code = compile(content, str(path), "exec", dont_inherit=True)
        # What a plugin prints must not stand among results, such as settings or JSON.
        with redirect_stdout(sys.stderr):
            exec(code, vars(module))  # noqa: S102
        added = [
            (key, name)
            for key, registry in REGISTRIES.items()
            for name in registry.data.keys() - before[key][0]
            if name not in registry.offers
        ]
        if not added:
            raise UserError(f"{path} registers no method: {FORM}.")
    except (Exception, SystemExit) as error:
        for key, registry in REGISTRIES.items():
            registry.data, registry.offers, _ = before[key]
        del sys.modules[module.__name__]
        if isinstance(error, UserError):
            raise
        raise _fault(path, error) from error
    finally:
        for key, registry in REGISTRIES.items():
            registry.protected = before[key][2]
    facts = PluginFacts(name=path.name, sha256=digest)
    _files.update(dict.fromkeys(added, _File(path, content, facts)))


def _read(path: Path) -> bytes:
    """Return the content of a plugin.

    Raises:
        UserError: there is no such file, or the file cannot be read.
    """
    if path.is_dir():
        raise UserError(f"--plugin {path} is a folder; give one Python file.")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        # All names end in .py, which would make them alike.
        near = did_you_mean(path.stem, sorted(other.stem for other in path.parent.glob("*.py")))
        advice = near.replace("? ", ".py?") or f"{FORM}."
        raise UserError(f"--plugin {path}: there is no such file; {advice}") from None
    except OSError as error:
        raise UserError(f"--plugin {path} cannot be read: {error.strerror}.") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"--plugin {path} has more than {MAX_BYTES:,} bytes; {FORM}.")
    return content


def _fault(place: Path, error: BaseException) -> UserError:
    """Return the sentence for an exception of the code of a plugin."""
    file, line = _line(error, place)
    where = f"{file}, line {line}" if line else f"{place}"
    text = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    if isinstance(error, MethodError) and not line:
        # The sentence about the shapes of the streams names file and line itself.
        return UserError(f"{text}.")
    reason = text if isinstance(error, RegistryError) else f"{type(error).__name__}: {text}"
    if isinstance(error, SyntaxError) and line:
        reason = f"{type(error).__name__}: {error.msg}"
    if isinstance(error, ImportError) and place.is_file():
        reason += " (a plugin is one file: put the code into the file, or install its package)"
    return UserError(f"{where}: {reason}.")


def _line(error: BaseException, place: Path) -> tuple[str, int]:
    """Return the last line of a plugin on the way to an exception, and its file; 0 if none is.

    Args:
        error: the exception.
        place: the file of the plugin, or the folder of its package.
    """
    if isinstance(error, SyntaxError) and error.filename == str(place):
        return str(place), error.lineno or 0
    found = "", 0
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file == str(place) or place in Path(file).parents:
            found = file, trace.tb_lineno
        trace = trace.tb_next
    return found
