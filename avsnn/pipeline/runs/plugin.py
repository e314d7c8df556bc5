"""Plugins: Python files of the user that add methods to the registry.

avsnn runs a plugin only if the user names the file. A run keeps a copy of its plugin, and avsnn
never runs the copy by itself, because a run folder may come from anyone.
"""

import hashlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from avsnn.errors import RunError, UserError
from avsnn.models.registry import METHODS, MethodError
from avsnn.pipeline.engine.atomic_files import write_if_changed
from avsnn.suggestions import did_you_mean

# Name of the copy in a run folder.
COPY = "plugin.py"

# A plugin is a file that a person writes; a larger file is something else.
MAX_BYTES = 5_000_000

FORM = (
    "a plugin is a Python file with METHODS['NAME'] = TwoStreams(CLASS), as "
    "docs/add-a-fusion-method.md shows"
)


class PluginFacts(BaseModel):
    """What a run records of its plugin.

    Attributes:
        name: name of the file.
        sha256: SHA-256 of the content, as hexadecimal digits.
    """

    name: str = Field(max_length=255)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Plugin(NamedTuple):
    """A plugin that was run in this process."""

    path: Path
    content: bytes
    facts: PluginFacts


# The plugin of each method that came from a plugin.
_plugins: dict[str, _Plugin] = {}


def load_plugins(paths: Sequence[Path]) -> None:
    """Run the plugins, which add their methods to the registry.

    Raises:
        UserError: a file cannot be read, the code has a fault, registers no method, or registers a
            method under a name that is taken. The registry then is as it was before.
    """
    for path in paths:
        _load(path)


def plugin_of(method: str) -> PluginFacts | None:
    """Return the facts about the plugin of a method; None if the method came from no plugin."""
    plugin = _plugins.get(method)
    return plugin and plugin.facts


def save_copy(folder: Path, facts: PluginFacts) -> None:
    """Keep a copy of a plugin in a run folder."""
    plugin = next(plugin for plugin in _plugins.values() if plugin.facts.sha256 == facts.sha256)
    write_if_changed(folder / COPY, plugin.content)


def require_known_method(values: Any, folder: Path) -> None:
    """Refuse a run whose method is not registered.

    Args:
        values: the content of ``config.yaml``, which nobody has checked yet.
        folder: the run folder.

    Raises:
        UserError: there is no such method; the sentence says how to get the method.
    """
    try:
        method = values["settings"]["model"]["method"]
    except (TypeError, LookupError):
        return
    if not isinstance(method, str) or method in METHODS:
        return
    try:
        facts = PluginFacts.model_validate(values.get("plugin"))
    except ValidationError:
        raise UserError(
            f"{folder} was trained with the method {method!r}, which is no method of this version "
            f"of avsnn; there are: {', '.join(METHODS)}. If a file of your own holds the method, "
            "add --plugin FILE."
        ) from None
    raise UserError(
        f"{folder} was trained with the method {method!r} of the plugin {facts.name}: add --plugin "
        f"{shlex.quote(facts.name)} to the command (in Python, import the file first)."
        f"{_copy_named(folder)}"
    )


def require_same_plugin(method: str, facts: PluginFacts | None, folder: Path) -> None:
    """Refuse to use the weights of a run with another content of its plugin.

    The same weights answer otherwise in another network, and nobody would see the difference. A
    method that a Python program registered itself, without a plugin, is taken as it is.

    Args:
        method: the method of the run.
        facts: the plugin that the run was trained with, if any.
        folder: the run folder.

    Raises:
        UserError: the method came from a file with another content.
    """
    plugin = _plugins.get(method)
    if plugin is None:
        return
    if facts is None:
        raise UserError(
            f"{folder} was trained with a method {method!r} of no plugin, and nobody knows whether "
            f"{plugin.path} holds the same method: train again with --plugin."
        )
    if facts.sha256 != plugin.facts.sha256:
        raise UserError(
            f"{folder} was trained with another content of {facts.name} than {plugin.path} has "
            "now, and its weights belong to that content: undo the change, or train again."
            f"{_copy_named(folder)}"
        )


@contextmanager
def plugin_faults_said(method: str, *, elsewhere: bool = False) -> Iterator[None]:
    """Turn an exception of the code of a plugin into a sentence with file and line.

    Args:
        method: the method that computes.
        elsewhere: whether an exception outside the plugin's lines is the plugin's fault too.

    Raises:
        UserError: the code of the plugin raised an exception.
    """
    try:
        yield
    except (UserError, RunError, MemoryError):
        raise
    except Exception as error:
        plugin = _plugins.get(method)
        if plugin is None:
            raise
        if _line(error, plugin.path) or elsewhere:
            raise _fault(plugin.path, error) from error
        raise


def _load(path: Path) -> None:
    content = _read(path)
    digest = hashlib.sha256(content).hexdigest()
    if any(plugin.facts.sha256 == digest for plugin in _plugins.values()):
        return
    # The name is no name of a module that anyone imports: a plugin may be called random.py.
    module = ModuleType(f"avsnn_plugin_{digest[:16]}")
    module.__file__ = str(path)
    before, protected = dict(METHODS), METHODS.protected
    METHODS.protect()
    sys.modules[module.__name__] = module
    try:
        # The bytes that were hashed are the code that runs. An import would also write a cache of
        # the code beside the file, and could read an old cache.
        code = compile(content, str(path), "exec", dont_inherit=True)
        # What a plugin prints must not stand among results, such as settings or JSON.
        with redirect_stdout(sys.stderr):
            exec(code, vars(module))  # noqa: S102
        if not METHODS.keys() - before:
            raise UserError(f"{path} registers no method: {FORM}.")
    except (Exception, SystemExit) as error:
        METHODS.data = before
        del sys.modules[module.__name__]
        if isinstance(error, UserError):
            raise
        raise _fault(path, error) from error
    finally:
        METHODS.protected = protected
    facts = PluginFacts(name=path.name, sha256=digest)
    for name in METHODS.keys() - before:
        _plugins[name] = _Plugin(path, content, facts)


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


def _fault(path: Path, error: BaseException) -> UserError:
    """Return the sentence for an exception of the code of a plugin."""
    line = _line(error, path)
    place = f"{path}, line {line}" if line else f"{path}"
    text = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    if isinstance(error, MethodError) and not line:
        # The sentence about the shapes of the streams names file and line itself.
        return UserError(f"{text}.")
    reason = text if isinstance(error, MethodError) else f"{type(error).__name__}: {text}"
    if isinstance(error, SyntaxError) and line:
        reason = f"{type(error).__name__}: {error.msg}"
    if isinstance(error, ImportError):
        reason += " (a plugin is one file: put the code into the file, or install its package)"
    return UserError(f"{place}: {reason}.")


def _line(error: BaseException, path: Path) -> int:
    """Return the last line of a file on the way to an exception; 0 if no line is on the way."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 0
    line = 0
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _copy_named(folder: Path) -> str:
    """Return a sentence that names the copy in a run folder; empty without a copy."""
    copy = folder / COPY
    if not copy.is_file():
        return ""
    word = shlex.quote(str(copy))
    return f" The run keeps a copy of the file: read {copy}, then give --plugin {word}."
