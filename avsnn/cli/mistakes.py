"""What a person typed wrong, in one sentence with the nearest right word.

Typer finds the mistake. Its sentences name neither what exists here nor what avsnn calls a thing.
"""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsnn.suggestions import did_you_mean, nearest, there_are

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import typer
    from pydantic import BaseModel

# What people type for a command.
COMMAND_SYNONYMS = {
    "list": "datasets",
    "ls": "datasets",
    "check": "datasets check",
    "show": "inspect",
    "view": "inspect",
    "download": "prepare",
    "fit": "train",
    "eval": "evaluate",
    "test": "evaluate",
    "new": "datasets new",
    "infer": "predict",
    "classify": "predict",
    "completion": "--install-completion",
}

# What people type for an option, with the words that avsnn has for the option.
OPTION_SYNONYMS = {
    "-s": "--set",
    "--gpu": "--device cuda",
    "--cuda": "--device cuda",
    "--cpu": "--device cpu",
    "--output": "--out",
    "--data": "--root",
}

# What people type for a choice.
CHOICE_SYNONYMS = {"gpu": "cuda", "dev": "val", "validation": "val"}


def in_own_words(error: typer.TyperException, words: list[str]) -> str:
    """Return the sentence about a mistake in the words of a command.

    Args:
        error: what Typer found.
        words: the words of the command, as typed.
    """
    # The library puts what it knows about a value on lines of its own.
    message = " ".join(error.message.replace("Value error, ", "").split())
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is None:
        return message
    command = _without_program(context)
    if match := re.match(r"No such command '(.*)'", message):
        return _unknown_command(match[1], command, context.command.commands, words)
    # Typer keeps the classes of these errors to itself, but the errors differ in their attributes.
    if hasattr(error, "possibilities"):
        return _unknown_option(str(getattr(error, "option_name", "")), context, words)
    if match := re.match(r"Got unexpected extra argument\S* \((.*)\)", message):
        spaced = _spaced_setting(words)
        if spaced and _settings(context):
            return f"{command} takes a setting without spaces: write --set {shlex.quote(spaced)}."
        return _unexpected(match[1], command, takes_settings=_settings(context) is not None)
    if parameter is None:
        return message
    if hasattr(error, "param_type"):
        return _missing(parameter, command)
    return f"{_name(parameter)} {_wrong_value(message)}."


def _without_program(context: Any) -> str:
    """Return the command, without the name of the program, which may be `python -m avsnn`."""
    return str(context.command_path).removeprefix(str(context.find_root().info_name)).strip()


def _wrong_value(message: str) -> str:
    """Return why a value is wrong, and what the value can be."""
    from avsnn.pipeline.settings_overrides import in_plain_words

    value, is_choice, choices = message.rstrip(".").rpartition(" is not one of ")
    if not is_choice:
        return f"is wrong: {in_plain_words(message)}"
    known = re.findall(r"'([^']*)'", choices)
    wanted = CHOICE_SYNONYMS.get(value.strip("'"), value)
    return f"cannot be {value}; {did_you_mean(wanted, known)}{there_are(wanted, known)}"


def _name(parameter: Any) -> str:
    """Return an option as a person types the option, or an argument as the help names it."""
    name = str(parameter.opts[0])
    return name if name.startswith("-") else str(parameter.metavar or parameter.name.upper())


def _unknown_command(word: str, group: str, commands: Mapping[str, Any], words: list[str]) -> str:
    synonyms = {name: name for name in commands}
    if not group:
        synonyms = COMMAND_SYNONYMS | synonyms
    right = synonyms.get(nearest(word, synonyms), "")
    if group and not right:
        # `presets healthy` lacks the command of the group; `presets print healthy` has another.
        after = words[words.index(word) + 1 :] if word in words else []
        named = next((other for other in after if not other.startswith("-")), word)
        right = f"{next(iter(commands))} {named}"
    elif not right:
        # `demo train` names the command last.
        right = next((f"{later} {word}" for later in words if later in commands), "")
    meant = f"did you mean {f'{group} {right}'.strip()}? " if right else ""
    program = f"avsnn {group}".strip()
    return (
        f"there is no command '{f'{group} {word}'.strip()}'; {meant}'{program} --help' explains "
        "all commands."
    )


def _unknown_option(option: str, context: Any, words: list[str]) -> str:
    """Return the option, or the setting with its value, that is most like an unknown option."""
    command = _without_program(context)
    program = f"avsnn {command}".strip()
    options = [name for parameter in context.command.params for name in parameter.opts]
    right = {name: name for name in options if name.startswith("-")}
    right |= {name: known for name, known in OPTION_SYNONYMS.items() if known.split()[0] in right}
    right["--version"] = "avsnn --version"
    wanted = option
    if kind := _settings(context):
        from avsnn.pipeline.settings_overrides import SYMBOLS, setting_keys

        wanted = SYMBOLS.get(option.lstrip("-").replace("-", "_"), option)
        for key in setting_keys(kind()):
            # `reproduce` takes the seed from --seeds alone.
            if f"--{key}s" not in options:
                right.setdefault(key.split(".")[-1], f"--set {key}=")
    meant = right.get(nearest(wanted, right), "")
    if meant.endswith("="):
        value = shlex.quote(_value_of(option, words) or "VALUE")
        return f"{command} has no option {option}; write {meant}{value} to change this setting."
    meant = meant and f"did you mean {meant}? "
    return (
        f"{command or program} has no option {option}; {meant}'{program} --help' explains all "
        "options."
    )


def _value_of(option: str, words: list[str]) -> str:
    """Return the word that a person gave to an option that does not exist."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name == option:
            return value or following
    return ""


def _spaced_setting(words: list[str]) -> str:
    """Return a setting that was typed as several words, such as `epochs = 3`, as KEY=VALUE."""
    spaced = r"^--set\n([\w.]+)(?:\n[=:]?\n?|[=:]\n)([^\n=-][^\n]*)$"
    match = re.search(spaced, "\n".join(words), re.MULTILINE)
    return f"{match[1]}={match[2]}" if match else ""


def _settings(context: Any) -> Callable[[], type[BaseModel]] | None:
    """Return a function that imports the settings of a command's ``--set``; None if none."""
    return {
        "train": _train_settings,
        "reproduce": _train_settings,
        "prepare": _prepare_settings,
    }.get(context.info_name)


def _train_settings() -> type[BaseModel]:
    from avsnn.pipeline.runs.train_settings import TrainSettings

    return TrainSettings


def _prepare_settings() -> type[BaseModel]:
    from avsnn.pipeline.formats.prepare_settings import PrepareSettings

    return PrepareSettings


def _unexpected(extra: str, command: str, *, takes_settings: bool) -> str:
    first = next(iter(extra.split()), extra)
    if takes_settings and "=" in first:
        return f"{command} does not take {first!r}; write --set {first} to change this setting."
    return f"{command} does not take {first!r}; 'avsnn {command} --help' shows what it takes."


def _missing(parameter: Any, command: str) -> str:
    """Return what an argument or an option is, and what there is here to choose from."""
    explained = str(parameter.help or "").rstrip(".")
    explained = explained[:1].lower() + explained[1:] if explained[1:2].islower() else explained
    here = ""
    with suppress(OSError):
        if parameter.name == "dataset":
            prepared = sorted(path.parent.name for path in Path("data").glob("*/prepared.json"))
            here = f". Prepared in data: {', '.join(prepared)}" if prepared else ""
        elif parameter.name in ("run", "runs"):
            found = sorted(str(path.parent) for path in Path("runs").glob("*/config.yaml"))
            here = f". Here {there_are('', found)}" if found else ""
    return f"{command} needs {_name(parameter)}: {explained}{here}."
