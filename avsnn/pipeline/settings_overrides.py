"""Builds checked settings from presets and from the ``key=value`` words of ``--set``."""

import json
import re
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from avsnn.errors import UserError
from avsnn.suggestions import did_you_mean, there_are

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

S = TypeVar("S", bound=BaseModel)

# No file and no value of avsnn is nested deeper than five levels.
MAX_YAML_DEPTH = 50

# The values that need no quotes and are no text: kind, form, and the characters that come first.
# All forms are forms of YAML 1.1 too, so that text that PyYAML writes without quotes stays text.
PLAIN_VALUES = (
    ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
    ("int", r"^[-+]?(0|[1-9][0-9]*)$", [*"-+0123456789"]),
    (
        "float",
        r"^(([-+]?[0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        [*"-+0123456789."],
    ),
)

# Symbols of papers and code, and the settings that they stand for.
SYMBOLS = {
    "T": "steps",
    "C": "channels",
    "lr": "base_lr",
    "learning_rate": "base_lr",
    "batch": "batch_size",
    "bs": "batch_size",
    "warmup": "warmup_epochs",
    "wd": "weight_decay",
}

# Words of pydantic, and what they mean.
PLAIN_WORDS = {
    "Input should be": "the value must be",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid dictionary": "a group of settings, such as {key: value}",
}

# A sentence shows so many characters of a wrong value.
MAX_SHOWN = 100


def build_settings(
    kind: type[S], presets: Iterable[Mapping[str, Any]], assignments: Iterable[str]
) -> S:
    """Return the default settings, changed by presets and by assignments.

    Args:
        kind: the class of the settings.
        presets: settings as nested mappings; a later preset overrides an earlier preset.
        assignments: words of the form ``key.sub=value``, where the value is YAML. Assignments
            override presets. A mapping such as ``model={method: audio}`` changes the settings that
            the mapping names, and leaves the other settings of the group.

    Raises:
        UserError: a word is no assignment, a key is unknown, or a value is not allowed. The
            sentence names the key, the value and what is allowed.
    """
    tree: dict[str, Any] = {}
    for preset in presets:
        _merge(tree, preset)
    for word in assignments:
        key, equals, value = word.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set {word!r} is not of the form KEY=VALUE{_as_assignment(word)}.")
        try:
            _assign(tree, key, parse_yaml(value))
        except ValueError:
            raise UserError(f"--set {key!r}: the value {value!r} is not valid YAML.") from None
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain_mistake(kind, error)) from None


def _as_assignment(word: str) -> str:
    """Return what to write in place of a word such as `epochs: 3`, or an empty text."""
    match = re.fullmatch(r"([\w.]+)\s*[:\s]\s*(\S+)", word)
    return f"; write --set {match[1]}={match[2]}" if match else ""


def parse_yaml(text: str | bytes) -> Any:
    """Return the value of a YAML text that may come from anyone.

    Args:
        text: the text, or its bytes in UTF-8.

    Raises:
        ValueError: the text is no YAML, is not in UTF-8, has an alias, gives a key twice, or is
            nested too deep. The message is a phrase without a line break.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise ValueError("it is not text in UTF-8") from None
    if yaml.__with_libyaml__:
        # The parser in C refuses some texts that PyYAML takes, and says so in other words. PyYAML
        # has the last word, so that an installation without the parser in C behaves the same.
        with suppress(yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError):
            return yaml.load(text, _FastLoader)  # noqa: S506
    try:
        # _PlainLoader is a SafeLoader, which makes plain values only and runs no code.
        return yaml.load(text, _PlainLoader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f" in line {mark.line + 1}"
        raise ValueError(f"{error.problem}{line}") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        # PyYAML lets errors of Python through, for instance of ``!!int ""``.
        raise ValueError(f"{str(error).splitlines()[0] or type(error).__name__}") from None


def first_mistake(error: ValidationError) -> str:
    """Return the first mistake that pydantic found, as a phrase without a line break."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ").splitlines()[0].rstrip(".")
    return f"{key}: {message}" if key else message


class _PlainLoader(yaml.SafeLoader):
    """Loads YAML without aliases and without deep nesting; plain words mean what a person reads.

    PyYAML keeps the last value of a key that is given twice, and a person would not see which
    value counts. Aliases of aliases stand for more memory than a machine has, and a value that is
    nested very deep exhausts the stack of Python. PyYAML takes 010 for 8, 1:30 for 90 and ``no``
    for false. Here such words stay text, and the setting decides what the text means.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own name; filled below
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        problem = ""
        if self.check_event(yaml.AliasEvent):
            problem = "an alias is not allowed"
        elif self._depth == MAX_YAML_DEPTH:
            problem = f"more than {MAX_YAML_DEPTH} levels of nesting"
        if problem:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    class _FastLoader(_PlainLoader, CParser):
        """The same loader with the parser in C, which takes a third of the time."""

        check_event, peek_event, get_event = (
            *(CParser.check_event, CParser.peek_event, CParser.get_event),
        )

        def __init__(self, stream: Any) -> None:
            CParser.__init__(self, stream)
            Composer.__init__(self)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)


for _kind, _pattern, _first_characters in PLAIN_VALUES:
    _PlainLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _first_characters
    )


def flatten(settings: BaseModel) -> dict[str, Any]:
    """Return all settings in one mapping, with keys such as ``optimizer.base_lr``."""
    return flatten_tree(settings.model_dump(mode="json"))


def flatten_tree(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping, with keys such as ``optimizer.base_lr``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten_tree(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(then: BaseModel, now: BaseModel) -> list[str]:
    """Return what differs between two settings of one kind, each as ``KEY was …, is …``."""
    before, after = flatten(then), flatten(now)
    return [
        f"{key} was {before.get(key)}, is {after[key]}"
        for key in after
        if before.get(key) != after[key]
    ]


def assignments(
    settings: BaseModel, *, always: Container[str] = (), without: Container[str] = ()
) -> list[str]:
    """Return the words ``--set KEY=VALUE`` of every setting that is not the default.

    Args:
        settings: the settings.
        always: keys of settings that are named although they are the default.
        without: keys of settings that are left out.
    """
    defaults = flatten(type(settings)())
    words = []
    for key, value in flatten(settings).items():
        if key not in without and (value != defaults.get(key) or key in always):
            is_plain = isinstance(value, str) and parse_yaml(value) == value
            words += ["--set", f"{key}={value if is_plain else json.dumps(value)}"]
    return words


def _merge(tree: dict[str, Any], preset: Mapping[str, Any]) -> None:
    """Put the values of a preset into the tree; the tree keeps every other value."""
    for key, value in preset.items():
        if isinstance(value, Mapping):
            if not isinstance(tree.get(key), dict):
                tree[key] = {}
            _merge(tree[key], value)
        else:
            tree[key] = value


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Put one value into the tree, under a key such as ``optimizer.base_lr``."""
    *groups, name = key.split(".")
    for group in groups:
        branch = tree.setdefault(group, {})
        if not isinstance(branch, dict):
            raise UserError(f"--set {key}: {group} is a value, not a group of settings.")
        tree = branch
    _merge(tree, {name: value})


def is_mistake_of_one_value(error: ValidationError) -> bool:
    """Return whether the first mistake is one key or value, not several that do not go together."""
    first = error.errors()[0]
    return first["type"] != "value_error" or not isinstance(first["input"], dict)


def explain_mistake(kind: type[BaseModel], error: ValidationError) -> str:
    """Return one sentence about the first mistake in the settings."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        parts = [str(part) for part in first["loc"]]
        return _explain_unknown_key(kind, parts, first["input"], first.get("ctx", {}).get("known"))
    message = in_plain_words(first["msg"])
    if not is_mistake_of_one_value(error):
        of_group = f" of {key}" if key else ""
        return f"the settings{of_group} do not go together: {message}."
    allowed = _allowed_range(kind, first["loc"])
    return f"setting {key} cannot be {_shortened(first['input'])}: {message}{allowed}."


def _explain_unknown_key(
    kind: type[BaseModel], parts: list[str], value: Any, of_group: list[str] | None
) -> str:
    """Return the sentence for an unknown key; ``of_group`` are the right names beside it."""
    groups = parts[:-1]
    if of_group is not None:
        known = allowed = [".".join([*groups, name]) for name in of_group]
    else:
        known, allowed = setting_keys(kind), _allowed_keys(kind, groups)
    # `modle.alpha=3` is a wrong group with a value in the group.
    while isinstance(value, dict) and len(value) == 1:
        ((name, value),) = value.items()
        parts = [*parts, str(name)]
    key = ".".join(parts)
    wanted = SYMBOLS.get(parts[-1], key)
    return (
        f"there is no setting {key} (value {_shortened(value)}); {did_you_mean(wanted, known)}"
        f"{there_are(wanted, allowed)}."
    )


def in_plain_words(message: str) -> str:
    """Return what pydantic says about a value, as a phrase about the value."""
    # After these words, pydantic names its ways of reading a value.
    phrase = re.split(", unable to | or instance of ", message.removeprefix("Value error, "))[0]
    phrase = phrase.rstrip(".")
    for words, plain in PLAIN_WORDS.items():
        phrase = phrase.replace(words, plain)
    return phrase


def _allowed_range(kind: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """Return the range of a setting that is a number, in brackets; empty for other settings."""
    field: FieldInfo | None = None
    for name in place:
        if field is not None and not hasattr(field.annotation, "model_fields"):
            # The class of the settings of a method depends on the method.
            return ""
        field = kind.model_fields.get(str(name))
        if field is None or not isinstance(field.annotation, type):
            break
        if issubclass(field.annotation, BaseModel):
            kind = field.annotation
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    bounds = [
        f"{word} {getattr(bound, name):,}"
        for bound in (field.metadata if field else ())
        for name, word in words.items()
        if hasattr(bound, name)
    ]
    return f" (allowed: {' and '.join(bounds)})" if bounds else ""


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def setting_keys(kind: type[BaseModel]) -> list[str]:
    """Return the full keys of all settings that are values."""
    keys = []
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += [f"{name}.{key}" for key in setting_keys(field.annotation)]
        else:
            keys.append(name)
    return keys


def _allowed_keys(kind: type[BaseModel], groups: list[str]) -> list[str]:
    """Return the keys of all settings in a group, which lies inside the other groups."""
    for group in groups:
        annotation = kind.model_fields[group].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)  # noqa: S101, PT018
        kind = annotation
    prefix = "".join(f"{group}." for group in groups)
    return [prefix + name for name in kind.model_fields]
