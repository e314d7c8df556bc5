"""Typed settings: from presets and ``--set key=value`` words to a checked model and back."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from avsnn.errors import UserError

S = TypeVar("S", bound=BaseModel)


def build_settings(
    kind: type[S], presets: Iterable[Mapping[str, Any]], assignments: Iterable[str]
) -> S:
    """Defaults, overlaid by presets in turn and by ``key.sub=value`` words (values are YAML).

    Raises:
        UserError: a word is no assignment, a key is unknown, or a value is not allowed; names the
            key, the value and what is allowed.
    """
    tree: dict[str, Any] = {}
    for preset in presets:
        _overlay(tree, preset)
    for word in assignments:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"--set {word!r} is not of the form key=value.")
        try:
            _place(tree, key, yaml.safe_load(value))
        except yaml.YAMLError:
            raise UserError(f"--set {key!r}: the value {value!r} is not valid YAML.") from None
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError(_sentence(kind, error)) from None


def flatten(settings: BaseModel) -> dict[str, Any]:
    """All settings as ``{"optimizer.lr": 0.001, ...}``."""
    flat: dict[str, Any] = {}

    def walk(tree: Mapping[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(settings.model_dump(mode="json"), "")
    return flat


def _overlay(tree: dict[str, Any], preset: Mapping[str, Any]) -> None:
    for key, value in preset.items():
        if isinstance(value, Mapping):
            _overlay(tree.setdefault(key, {}), value)
        else:
            tree[key] = value


def _place(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        branch = tree.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise UserError(f"--set {key}: {parent} is a value, not a group of settings.")
        tree = branch
    tree[leaf] = value


def _sentence(kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        *parents, _ = (str(part) for part in first["loc"])
        allowed = ", ".join(_keys(kind, parents))
        return f"there is no setting {key} (value {first['input']!r}); there are: {allowed}."
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if isinstance(first["input"], dict):
        return f"settings of {key or 'the whole'} do not go together: {message}."
    return f"setting {key} cannot be {first['input']!r}: {message}."


def _keys(kind: type[BaseModel], parents: list[str]) -> list[str]:
    for parent in parents:
        inner = kind.model_fields[parent].annotation
        assert isinstance(inner, type) and issubclass(inner, BaseModel)  # noqa: S101, PT018
        kind = inner
    prefix = "".join(f"{parent}." for parent in parents)
    return [prefix + name for name in kind.model_fields]
