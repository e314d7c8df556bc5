"""Reference pages of the site that are generated from the code."""

import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import typer.cli
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from avsnn.cli.main import app
from avsnn.datasets_manifest import schema
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.runs.train_settings import TrainSettings

METHODS_PAGE = Path(__file__).with_name("methods.md")

# Heading of each object on the page of the API, and where the object is defined.
API = {
    "Trained runs": ("pipeline.library.run.load", "pipeline.library.run.Run"),
    "Measures": ("pipeline.evaluation.results.RunResults", "pipeline.rows.Rows"),
    "Answers and exports": (
        *("pipeline.prediction.record.Prediction", "pipeline.export.export.Export"),
        "pipeline.export.hub.SpikingClassifier",
    ),
    "Networks": ("pipeline.library.build.build", "models.spikformer.Output"),
    "Fusion methods": (
        *("models.fusion.Fusion", "models.fusion.Fused"),
        *("models.methods.TwoStreams", "models.methods.OneStream"),
    ),
    "Energy": ("models.energy.count_operations", "models.energy.Operations"),
    "Clips": (
        *("pipeline.library.clips.open_clips", "pipeline.library.clips.Clips"),
        "pipeline.library.clips.ClipTensors",
    ),
    "Errors": ("errors.UserError", "errors.RunError"),
}


def api() -> str:
    """Return the page that lists the public functions and classes with their docstrings."""
    lines = [
        "# API",
        "Signatures and docstrings of what [avsnn in Python](api.md) shows with examples. Settings "
        "have [a page of their own](settings.md).",
    ]
    for title, names in API.items():
        lines.append(f"## {title}")
        lines += [f"::: avsnn.{name}\n    options:\n      heading_level: 3" for name in names]
    return "\n\n".join(lines)


def commands() -> str:
    """Return the page of all commands, as ``avsnn COMMAND --help`` prints them."""
    command = typer.main.get_command(app)
    text = typer.cli.get_docs_for_click(obj=command, ctx=typer.Context(command), name="avsnn")
    text = re.sub(r"^\* `-?[-\w, ]*--help`: .*\n", "", text, flags=re.M)
    text = re.sub(r"\*\*Options\*\*:\n\n(?!\*)", "", text)
    text = re.sub(r"\*\*(Usage|Arguments|Options|Commands)\*\*:", r"**\1**", text)
    # Typer writes arguments as `{dataset}`, `[key]` and `dataset <str>`, and bounds as a formula.
    text = re.sub(r"^\$ .*$", lambda line: usage(line[0]), text, flags=re.M)
    argument = re.compile(r"^\* `([\w.]+) <[\w\[\]]+>`: ", re.M)
    text = argument.sub(lambda name: f"* `{name[1].upper()}`: ", text)
    text = re.sub(r"\bx>=(\d+)", r"at least \1", re.sub(r"(\d+)<=x<=(\d+)", r"\1 to \2", text))
    for words, one in subcommands(command, ("avsnn",)):
        # The list of commands cuts their sentences; here each name leads to its command.
        listed = f"* [`{words[-1]}`](#{'-'.join(words)}): {one.get_short_help_str(1000)}"
        text = re.sub(rf"^\* `{words[-1]}`: .*$", lambda _: listed, text, flags=re.M)  # noqa: B023
    return text.replace("# `avsnn`", "# Commands", 1)


def usage(line: str) -> str:
    """Return how a command is used, with its arguments in capitals."""
    line = re.sub(r"\{([\w.]+)\}(?:\.\.\.)?", lambda name: name[1].upper(), line)
    return re.sub(r"\[(\w+)\]", lambda name: name[0].upper(), line)


def subcommands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command below a group, with its words."""
    for name, command in getattr(group, "commands", {}).items():
        yield (*words, name), command
        yield from subcommands(command, (*words, name))


def settings() -> str:
    """Return the page of all settings of trainings and of preparations."""
    published = published_behaviour()
    lines = [
        "# Settings",
        "`--set KEY=VALUE` changes one setting, and can be repeated: "
        "`avsnn train demo --set model.method=add --set epochs=10`. The defaults of a training are "
        "the published recipe for CREMA-D; a preset that has the name of the data set lies over "
        "the defaults, and `--set` lies over both. `RUN/config.yaml` lists every setting of a run.",
        "## Settings of a training",
        "For `avsnn train`, `avsnn reproduce` and `avsnn.open_clips`.",
        *settings_tables(TrainSettings, published),
        "## Settings of a preparation",
        "For `avsnn prepare`. They decide the bytes of shards and caches.",
        *settings_tables(PrepareSettings, published),
    ]
    return "\n\n".join(lines)


def settings_tables(
    model: type[BaseModel], published: dict[str, str], prefix: str = ""
) -> Iterator[str]:
    """Yield a table of the settings of a class, and a heading and a table for each group in it."""
    fields = model.model_fields.items()
    groups = {name: info for name, info in fields if nested(info)}
    rows = [
        row(code(f"{prefix}{name}", anchor=True), info, published.get(f"{prefix}{name}", ""))
        for name, info in fields
        if name not in groups
    ]
    if rows:
        yield "\n".join(
            ["| setting | default | what the setting decides |", "|---|---|---|", *rows]
        )
    for name, info in groups.items():
        key = f"{prefix}{name}"
        yield f"### {key}\n\n{sentence(info.description or '')}"
        yield from settings_tables(nested(info), published, f"{key}.")


def published_behaviour() -> dict[str, str]:
    """Return the published behaviour that each setting can change, from the page on methods."""
    rows = re.findall(r"^\| ([^|`]+) \| ((?:`[\w.]+`(?:, )?)+) \|$", METHODS_PAGE.read_text(), re.M)
    return {key: text for text, keys in rows for key in re.findall(r"`([\w.]+)`", keys)}


def manifest_fields() -> str:
    """Return the page of all fields of a data set's YAML file and columns of its table."""
    fields = schema.Manifest.model_fields.items()
    parts = {name: models for name, info in fields if (models := models_in(info.annotation))}
    lines = [
        "# Fields of a data set's YAML",
        "A data set is a YAML file and, beside the YAML file, a CSV file with one row for each "
        "clip. A field without a default must be there.",
        paragraphs(schema.Manifest.__doc__ or "").partition("\n\n")[2],
        field_table(schema.Manifest, linked=list(parts)),
    ]
    for field, models in parts.items():
        lines.append(f"## {field}")
        for model in models:
            lines += [paragraphs(model.__doc__ or ""), field_table(model)]
    return "\n\n".join(lines)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the classes with fields that a type names, and the classes that their fields name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = [models_in(info.annotation) for info in annotation.model_fields.values()]
        found = [annotation, *(model for models in inner for model in models)]
    else:
        found = [model for one in get_args(annotation) for model in models_in(one)]
    return list(dict.fromkeys(found))


def field_table(model: type[BaseModel], linked: Sequence[str] = ()) -> str:
    """Return the table of the fields of a class; the linked fields have a section of their own."""
    rows = [
        row(f"[{code(name)}](#{name})" if name in linked else code(name), info)
        for name, info in model.model_fields.items()
    ]
    return "\n".join(["| field | default | what it says |", "|---|---|---|", *rows])


def row(name: str, info: FieldInfo, published: str = "") -> str:
    """Return the row of a table for one field.

    Args:
        name: the field, as Markdown.
        info: the facts about the field.
        published: the published behaviour that the field can change, if there is any.
    """
    default = ""
    if not info.is_required():
        default = f"`{value_text(info.get_default(call_default_factory=True))}`"
    about = sentence(info.description or "")
    if published:
        about += f" Published behaviour: {published}."
    about += f"<br>*{allowed(info)}*"
    return f"| {name} | {default} | {about.replace('|', chr(92) + '|')} |"


def code(key: str, *, anchor: bool = False) -> str:
    """Return a key as HTML that a narrow screen breaks behind dots and underscores."""
    place = f' id="{key}"' if anchor else ""
    breakable = re.sub(r"([._])", r"\1<wbr>", key)
    return f"<code{place}>{breakable}</code>"


def value_text(value: object) -> str:
    """Return a default as a YAML file writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if value in ((), {}, []):
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def allowed(info: FieldInfo) -> str:
    """Return the values that a field takes, in words."""
    words = type_words(info.annotation)
    bounds = {
        name: getattr(one, name) for one in info.metadata for name in BOUNDS if hasattr(one, name)
    }
    low = [f"{BOUNDS[name]} {bounds[name]:,}" for name in BOUNDS if name in bounds]
    return ", ".join([words, *low])


BOUNDS = {
    "ge": "at least",
    "gt": "above",
    "le": "at most",
    "lt": "below",
    "min_length": "length at least",
}
TYPES = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "null",
}


def type_words(annotation: Any) -> str:
    """Return the values of a type, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_words(inner[0])
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_words(one) for one in inner))
    if origin in (tuple, list):
        return f"list of {type_words(inner[0])}"
    if origin is dict:
        return f"mapping of names to {type_words(inner[1])}"
    return TYPES.get(annotation, "fields below")


def nested(info: FieldInfo) -> Any:
    """Return the class of settings that a field holds, or None."""
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def sentence(text: str) -> str:
    """Return a description as a sentence."""
    return text if text.endswith((".", "!", "?")) or not text else f"{text}."


def paragraphs(docstring: str) -> str:
    """Return a docstring as Markdown."""
    lines = [line.strip() for line in docstring.strip().splitlines()]
    return re.sub(r" \(:\w+:`[^`]+`\)", "", "\n".join(lines)).replace("``", "`")
