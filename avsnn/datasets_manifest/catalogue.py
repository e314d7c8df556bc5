"""Finds data sets by name: those that come with avsnn, and those in a folder of the user."""

import os
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from pydantic import ValidationError

from avsnn.datasets_manifest.schema import Manifest
from avsnn.errors import UserError
from avsnn.suggestions import did_you_mean

# Environment variable that names a folder with YAML and CSV files of the user.
USER_FOLDER_VARIABLE = "AVSNN_DATASETS"


def names() -> list[str]:
    """Return the names of all data sets, sorted: those of avsnn, and those of the user.

    Raises:
        UserError: the folder of the user does not exist or is a file.
    """
    return sorted(_manifest_files())


def load(name: str) -> Manifest:
    """Return the manifest of a data set.

    Raises:
        UserError: there is no such data set, or its YAML file does not fit the schema.
    """
    found = _manifest_files()
    if name not in found:
        known = ", ".join(sorted(found))
        raise UserError(
            f"no data set is called {name!r}; {did_you_mean(name, found)}there are: {known}. avsnn "
            "also finds data sets of your own, in the folder that the environment variable "
            f"{USER_FOLDER_VARIABLE} names."
        )
    file = found[name]
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    manifest = _parse_manifest(name, content)
    if manifest.table is not None and isinstance(file, Path) and file.parent == _user_folder():
        return manifest.with_table(file.with_name(manifest.table))
    return manifest


def _manifest_files() -> dict[str, Traversable]:
    """Return the YAML file of every data set, by name.

    A file of the user replaces the file of avsnn with the same name.
    """
    folders: list[Traversable] = [files(__package__)]
    if (user_folder := _user_folder()) is not None:
        if not user_folder.is_dir():
            raise UserError(
                f"{USER_FOLDER_VARIABLE}={user_folder} is not a folder; give the folder that "
                "holds your YAML files."
            )
        folders.append(user_folder)
    try:
        entries = [entry for folder in folders for entry in folder.iterdir()]
    except OSError as error:
        raise UserError(
            f"{USER_FOLDER_VARIABLE}={user_folder} cannot be read: {error.strerror}."
        ) from None
    return {
        _printable(entry.name.removesuffix(".yaml")): entry
        for entry in entries
        # macOS puts a hidden file beside each file on a foreign disk: "._mine.yaml".
        if entry.name.endswith(".yaml") and not entry.name.startswith(".")
    }


def _printable(name: str) -> str:
    """Return a file name with escapes for bytes that are not UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def _user_folder() -> Path | None:
    folder = os.environ.get(USER_FOLDER_VARIABLE)
    return Path(folder) if folder else None


@lru_cache(maxsize=64)
def _parse_manifest(name: str, content: bytes) -> Manifest:
    """Parse and check a YAML file, once for a command that asks for a data set many times."""
    try:
        manifest = Manifest.model_validate(yaml.safe_load(content.decode()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise UserError(f"{name}.yaml: {where}: {first['msg']}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            reason = f"line {error.problem_mark.line + 1}: {error.problem or reason}"
        raise UserError(f"{name}.yaml is not YAML ({reason}); mend it.") from None
    if manifest.name != name:
        raise UserError(
            f"{name}.yaml: the name inside is {manifest.name!r}; name the file after it."
        )
    return manifest
