"""Plugins: Python files of the user, which add entries to registries.

avsnn runs a file only if the user names the file.
"""

import hashlib
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from avsnn.errors import UserError
from avsnn.registry import Registry, RegistryError
from avsnn.suggestions import did_you_mean

# A plugin is a file that a person writes; a larger file is something else.
MAX_BYTES = 5_000_000


class PluginFacts(BaseModel, frozen=True):
    """What is recorded of a plugin.

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


def read_plugin(path: Path, form: str) -> bytes:
    """Return the content of a plugin.

    Args:
        path: the file.
        form: a phrase on what a plugin is, for messages.

    Raises:
        UserError: there is no such file, or the file cannot be read or is too large.
    """
    if path.is_dir():
        raise UserError(f"--plugin {path} is a folder; give one Python file.")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        # All names end in .py, which would make them alike.
        near = did_you_mean(path.stem, sorted(other.stem for other in path.parent.glob("*.py")))
        advice = near.replace("? ", ".py?") or f"{form}."
        raise UserError(f"--plugin {path}: there is no such file; {advice}") from None
    except OSError as error:
        raise UserError(f"--plugin {path} cannot be read: {error.strerror}.") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"--plugin {path} has more than {MAX_BYTES:,} bytes; {form}.")
    return content


def run_plugin(
    path: Path, content: bytes, registries: Mapping[str, Registry[Any]]
) -> list[tuple[str, str]]:
    """Run the content of a file, and return what the file has registered.

    Args:
        path: the file, for messages; nothing reads the file again.
        content: the content of the file.
        registries: the registries that may get entries.

    Returns:
        the key of the registry and the name of every entry.

    Raises:
        UserError: the code has a fault, or registers something under a name that is taken. The
            registries then are as they were before.
    """
    # The name is no name of a module that anyone imports: a plugin may be called random.py.
    module = ModuleType(f"avsnn_plugin_{hashlib.sha256(content).hexdigest()[:16]}")
    module.__file__ = str(path)
    before = {
        key: (dict(registry.data), dict(registry.offers), registry.protected)
        for key, registry in registries.items()
    }
    for registry in registries.values():
        registry.protect()
    sys.modules[module.__name__] = module
    try:
        # The bytes that were hashed are the code that runs. An import would also write a cache of
        # the code beside the file, and could read an old cache.
        code = compile(content, str(path), "exec", dont_inherit=True)
        # What a plugin prints must not stand among results, such as settings or JSON.
        with redirect_stdout(sys.stderr):
            exec(code, vars(module))  # noqa: S102
    except (Exception, SystemExit) as error:
        for key, registry in registries.items():
            registry.data, registry.offers, _ = before[key]
        del sys.modules[module.__name__]
        raise fault_of(path, error) from error
    finally:
        for key, registry in registries.items():
            registry.protected = before[key][2]
    return [
        (key, name)
        for key, registry in registries.items()
        for name in registry.data
        if name not in before[key][0] and name not in registry.offers
    ]


def fault_of(place: Path, error: BaseException) -> UserError:
    """Return the sentence for an exception of the code of a plugin.

    Args:
        place: the file of the plugin, or the folder of its package.
        error: the exception.
    """
    file, line = line_of(error, place)
    where = f"{file}, line {line}" if line else f"{place}"
    text = first_line(error)
    reason = text if isinstance(error, RegistryError) else f"{type(error).__name__}: {text}"
    if isinstance(error, SyntaxError) and line:
        reason = f"{type(error).__name__}: {error.msg}"
    if isinstance(error, ImportError) and place.is_file():
        reason += " (a plugin is one file: put the code into the file, or install its package)"
    return UserError(f"{where}: {reason}.")


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an exception, without the dot at its end."""
    return (str(error).strip() or "no message").splitlines()[0].rstrip(".")


def line_of(error: BaseException, place: Path) -> tuple[str, int]:
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
