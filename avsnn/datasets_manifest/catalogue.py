"""Finds data sets by name: those that come with avsnn, and those in a folder of the user."""

import os
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from pydantic import ValidationError

from avsnn.datasets_manifest.faults import describe_fault, describe_syntax
from avsnn.datasets_manifest.schema import Manifest
from avsnn.errors import UserError
from avsnn.suggestions import did_you_mean, there_are

# Environment variable that names a folder with YAML and CSV files of the user. The option
# --datasets sets the variable.
USER_FOLDER_VARIABLE = "AVSNN_DATASETS"


def names() -> list[str]:
    """Return the names of all data sets, sorted: those of avsnn, and those of the user.

    Raises:
        UserError: a folder of the user does not exist, is a file, or cannot be read.
    """
    return sorted(_manifest_files())


def load(name: str) -> Manifest:
    """Return the manifest of a data set.

    Raises:
        UserError: there is no such data set, or its YAML file does not fit the schema.
    """
    found = _manifest_files()
    if name not in found:
        known = there_are(name, sorted(found))
        raise UserError(
            f"no data set is called {name!r}; {did_you_mean(name, found)}{known}. avsnn "
            f"also finds data sets of your own, in {user_folder()} and in the folder that "
            f"--datasets or the environment variable {USER_FOLDER_VARIABLE} names."
        )
    file = found[name]
    if file.name.endswith(".yml"):
        raise UserError(f"{file} has another suffix than data sets have; call it {name}.yaml.")
    if isinstance(file, Path) and file.is_fifo():
        # Nobody may ever write into the pipe, and reading would never end.
        raise UserError(f"{file} cannot be read: it is a pipe.")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    is_of_user = isinstance(file, Path) and file.parent in _folders_of_user()
    manifest = _parse_manifest(name, str(file) if is_of_user else file.name, content)
    return manifest.of_file(Path(str(file))) if is_of_user else manifest


def user_folder() -> Path:
    """Return the folder of the user that avsnn always searches; the folder need not exist."""
    # An environment without a home folder leaves the "~" as it is.
    config = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(config):  # noqa: PTH117
        config = os.path.expanduser("~/.config")  # noqa: PTH111
    return Path(config, "avsnn", "datasets")


def named_folder() -> Path | None:
    """Return the folder that --datasets or the environment variable names; None where none does."""
    folder = os.environ.get(USER_FOLDER_VARIABLE)
    return Path(folder) if folder else None


def _folders_of_user() -> list[Path]:
    """Return the folders of the user that exist; a later folder takes precedence.

    Raises:
        UserError: the folder that the user named does not exist or is a file.
    """
    # Not `Path.is_dir`, which raises an exception where nobody may enter the home folder.
    folders = [user_folder()] if os.path.isdir(user_folder()) else []  # noqa: PTH112
    if (named := named_folder()) is not None:
        if not os.path.isdir(named):  # noqa: PTH112
            raise UserError(
                f"{named} is not a folder; --datasets or the environment variable "
                f"{USER_FOLDER_VARIABLE} must name the folder that holds your YAML files."
            )
        folders.append(named)
    return folders


def _manifest_files() -> dict[str, Traversable]:
    """Return the YAML file of every data set, by name.

    A file of the user replaces the file of avsnn with the same name.
    """
    found: dict[str, Traversable] = {}
    for folder in (files(__package__), *_folders_of_user()):
        try:
            entries = [*folder.iterdir()]
        except OSError as error:
            raise UserError(
                f"{folder}, a folder of data sets, cannot be read: {error.strerror}."
            ) from None
        # A file with the other suffix is found too, so that somebody is told to rename the file.
        for suffix in (".yml", ".yaml"):
            found |= {
                _printable(entry.name.removesuffix(suffix)): entry
                for entry in entries
                # macOS puts a hidden file beside each file on a foreign disk: "._mine.yaml".
                if entry.name.endswith(suffix) and not entry.name.startswith(".")
            }
    return found


def _printable(name: str) -> str:
    """Return a file name with escapes for bytes that are not UTF-8."""
    return name.encode(errors="backslashreplace").decode()


@lru_cache(maxsize=64)
def _parse_manifest(name: str, place: str, content: bytes) -> Manifest:
    """Parse and check a YAML file, once for a command that asks for a data set many times.

    Args:
        name: name of the data set.
        place: name or path of the file in error messages.
        content: content of the file.
    """
    try:
        manifest = Manifest.model_validate(yaml.safe_load(content.decode()))
    except ValidationError as error:
        raise UserError(f"{place}: {describe_fault(Manifest, error)}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{place} {describe_syntax(error)}.") from None
    if manifest.name != name:
        raise UserError(
            f"{place}: the name inside is {manifest.name!r}; name the file after it, or write "
            f"name: {name}."
        )
    return manifest
