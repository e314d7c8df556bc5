"""What is wrong with a data set's YAML file, and what to write instead."""

import re
from collections.abc import Iterator
from reprlib import Repr
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from avsnn.suggestions import did_you_mean

# A sentence shows so many characters of a wrong value.
MAX_SHOWN = 60

# What a value must be, by pydantic's name of the mistake.
WANTED = {
    "string_type": "text",
    "tuple_type": "a list, such as [cat, dog]",
    "dict_type": "lines of the form 'name: value', indented below the field",
    "model_type": "lines of the form 'field: value', indented below the field",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("int_type", "int_parsing"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
}

# What to do about the words of the YAML library for the mistakes that people make.
ADVICE = {
    "mapping values are not allowed": "put a text that holds a colon in quotes",
    "cannot start any token": "indent with spaces and not with tabs, and put a text that begins "
    "with a special character in quotes",
}


def describe_syntax(error: Exception) -> str:
    """Return why a text is no YAML and what to write instead, without a full stop."""
    reason = str(error).splitlines()[0]
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        reason = f"line {error.problem_mark.line + 1}: {error.problem or reason}"
    advice = next((advice for words, advice in ADVICE.items() if words in reason), "mend it")
    return f"is not YAML ({reason}); {advice}"


def describe_fault(kind: type[BaseModel], error: ValidationError) -> str:
    """Return what is wrong with the content of a YAML file and what to write instead.

    Args:
        kind: the class of the content.
        error: what pydantic found.

    Returns:
        the first mistake, as a phrase without a full stop; a field that does not exist comes
        before a field that is missing, because one may be the other.
    """
    order = {"extra_forbidden": 0, "missing": 2}
    first = min(error.errors(), key=lambda mistake: order.get(mistake["type"], 1))
    place, value, form = _find(kind, first["loc"]), first["input"], first["type"]
    if form == "extra_forbidden":
        return _describe_unknown(place)
    if form == "missing":
        return _describe_missing(place)
    where = place.name or "the whole file"
    if form == "string_type" and isinstance(value, bool | int | float):
        return f"{where} must be text, and YAML reads {value!r}; put the value in quotes"
    if form in WANTED:
        return f"{where} must be {WANTED[form]}, not {_shown(value)}"
    message = first["msg"].removeprefix("Value error, ").splitlines()[0].rstrip(".")
    message = re.sub(r"^\w+ should ", "the value must ", message).replace(" after validation", "")
    if form in ("value_error", "rule_of_split"):
        return f"{place.name}: {message}" if place.name else message
    near = ""
    if form == "string_pattern_mismatch" and place.field:
        form = f"pattern {first['ctx']['pattern']}"
        return f"{where} cannot be {_shown(value)}; write: {place.field.description} ({form})"
    if form == "literal_error" and place.field:
        near = did_you_mean(str(value)[:MAX_SHOWN], map(str, get_args(place.field.annotation)))
    about = f" ({place.field.description})" if place.field and place.field.description else ""
    return f"{where} cannot be {_shown(value)}: {near}{message}{about}"


class _Place(NamedTuple):
    """Where a mistake is.

    Attributes:
        parts: names of the fields, keys and numbers of the items that lead to the mistake.
        holder: the class that has the field, or should have it.
        field: the field; None where the class has no such field.
    """

    parts: tuple[str, ...]
    holder: type[BaseModel]
    field: FieldInfo | None

    @property
    def name(self) -> str:
        """The whole name, such as ``splits.random.test_share``."""
        return ".".join(self.parts)

    @property
    def outer(self) -> str:
        """The name of what holds the field; empty for the whole file."""
        return ".".join(self.parts[:-1])


def _describe_unknown(place: _Place) -> str:
    known = place.holder.model_fields
    name = _shown(place.parts[-1])
    near = did_you_mean(place.parts[-1][:MAX_SHOWN], known)
    what = f"{place.outer} has no field {name}" if place.outer else f"there is no field {name}"
    return f"{what}; {near}mend the line" if near else f"{what}; there are: {', '.join(known)}"


def _describe_missing(place: _Place) -> str:
    examples = (place.field.examples if place.field else None) or ["..."]
    line = yaml.safe_dump({place.parts[-1]: examples[0]}, default_flow_style=True).strip()
    what = f" ({place.field.description})" if place.field and place.field.description else ""
    below = f" below {place.outer}" if place.outer else ""
    return f"the field {place.name} is missing{what}; add a line{below}, such as {line[1:-1]}"


def _find(kind: type[BaseModel], location: tuple[int | str, ...]) -> _Place:
    """Return the place of a mistake that pydantic found."""
    parts: list[str] = []
    holder, field = kind, None
    inside: dict[str, type[BaseModel]] = {}
    for item in location:
        if item in inside:
            # The name of a class tells which of several forms a value has; nobody wrote the name.
            holder, field, inside = inside[str(item)], None, {}
            continue
        parts.append(str(item))
        if isinstance(item, int) or len(inside) > 1:
            # A number or a key of the user, below which the same classes are possible.
            continue
        holder = next(iter(inside.values()), holder)
        field = holder.model_fields.get(item)
        inside = dict(_models_in(field.annotation)) if field else {}
    return _Place(tuple(parts), holder, field)


def _models_in(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield every class of settings in a type, with its name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation.__name__, annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _shown(value: Any) -> str:
    """Return the start of a value; aliases of aliases in a YAML can make a value without end."""
    shortener = Repr()
    shortener.maxlevel = 2
    shortener.maxstring = shortener.maxother = shortener.maxlong = MAX_SHOWN
    text = shortener.repr(value)
    return text if text.isprintable() else ascii(text)
