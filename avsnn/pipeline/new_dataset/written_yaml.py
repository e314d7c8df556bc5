"""The YAML file of a new data set, as a person would write the file."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from avsnn.errors import UserError

# Width in characters at which a list of classes goes on in the next line.
WIDTH = 96


def render_yaml(facts: Mapping[str, Any], *, why_group: str, why_split: str, sound: str) -> str:
    """Return the text of the YAML file.

    Args:
        facts: the fields and their values.
        why_group: where the groups come from, as a comment.
        why_split: what the split promises, as a comment.
        sound: where the sound comes from, as a comment; empty where that is plain.
    """
    name = facts["name"]
    comments = {
        "take": "or copy: prepare then copies the files instead of linking to them",
        "visual": sound,
        "group": why_group,
        "preset": "settings that suit the number of clips; see 'avsnn presets'",
    }
    above = {
        "folder": f"\n# The files. The paths in {facts['table']} are below this folder.",
        "visual": "\n# The clips: one row each in the table.",
        "default_split": "\n# Which clips are train, val and test.",
    }
    lines = [
        "# A data set of your own, written by 'avsnn datasets new'. You may change every line."
    ]
    for field, value in facts.items():
        if field in above:
            lines.append(above[field])
        lines.append(render_field(field, value))
    lines.insert(-1, f"# {why_split}")
    lines.append(f"\n# docs/own-data.md explains every field, and how to correct {name}.")
    text = "\n".join(lines) + "\n"
    for field, comment in comments.items():
        text = comment_on(text, field, comment)
    return text


def comment_on(text: str, field: str, comment: str) -> str:
    """Return a YAML file with a comment behind a field that is on one line and has no comment."""
    if not comment:
        return text
    line = re.compile(rf"^({field}: [^#\n]+)$", re.MULTILINE)
    return line.sub(lambda found: f"{found[1]}  # {comment}", text, count=1)


def render_field(field: str, value: Any) -> str:
    """Return a field and its value as YAML: a list on one line, a mapping on several lines."""
    # A long text stays on one line. Only lists are flow style, and only lists are broken.
    is_list = isinstance(value, list | tuple)
    text = yaml.safe_dump(
        {field: None if is_list else value},
        allow_unicode=True,
        sort_keys=False,
        default_flow_style=False,
        width=10**6,
    ).rstrip("\n")
    if not is_list:
        return text
    items = yaml.safe_dump([*value], allow_unicode=True, default_flow_style=True, width=WIDTH)
    return f"{field}: {items.rstrip()}"


def edit_yaml(text: str, name: str, changes: Mapping[str, Any]) -> str:
    """Return a YAML file with other values of some fields; the rest of the text stays as it is.

    Raises:
        UserError: the file is written such that the fields cannot be replaced.
    """
    before = yaml.safe_load(text)
    for field, value in changes.items():
        line = render_field(field, value) + "\n"
        # A value goes on in lines that are indented, and a list in lines that start with a hyphen.
        old = re.compile(rf"^{field}:[^\n]*\n?(?:[ \t]+[^\n]*\n?|-[^\n]*\n?|\]\n?)*", re.MULTILINE)
        if found := old.search(text):
            text = text[: found.start()] + line + text[found.end() :]
        else:
            text = text.rstrip("\n") + f"\n{line}"
    try:
        is_right = yaml.safe_load(text) == {**before, **changes}
    except yaml.YAMLError:
        is_right = False
    if not is_right:
        wanted = "; ".join(render_field(field, value) for field, value in changes.items())
        raise UserError(f"{name}.yaml could not be changed; write into the file: {wanted}")
    return text
