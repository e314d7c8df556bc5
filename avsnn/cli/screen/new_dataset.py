"""What `datasets new` prints and asks."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from avsnn.cli.screen.console import err, out, say
from avsnn.cli.streams import printable
from avsnn.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from avsnn.pipeline.new_dataset.groups import GroupGuess
    from avsnn.pipeline.new_dataset.new_dataset import NewDataset
    from avsnn.pipeline.new_dataset.oddities import Oddity

# The screen lists so many classes; --json lists all.
CLASSES_LISTED = 30
# A row shows so many different sizes or rates.
VALUES_LISTED = 4


def confirm_groups(guess: GroupGuess) -> str:
    """Ask on a terminal whether a guess of groups is right; return the answer.

    Returns:
        empty to take the guess, ``none``, or a regular expression that the person typed.
    """
    sentence = _guess_in_words(guess)
    if not (sys.stdin.isatty() and err.is_terminal):
        return ""
    from avsnn.pipeline.new_dataset.groups import compile_group_pattern

    say(sentence)
    while True:
        err.print("Use these groups? [Y/n/REGEX] ", end="")
        answer = sys.stdin.readline().strip()
        if answer.lower() in ("", "y", "yes"):
            return ""
        if answer.lower() in ("n", "no", "none"):
            return "none"
        try:
            compile_group_pattern(answer)
        except UserError as error:
            say(str(error))
            continue
        return answer


def _guess_in_words(guess: GroupGuess) -> str:
    what = "a folder" if guess.in_folder else "a word of the file name"
    return (
        f"Clips of one speaker or recording seem to share {what}: {guess.group!r} in "
        f"{guess.path} and so on, {guess.groups:,} groups in {guess.clips:,} clips. No group will "
        "be in two parts of the split."
    )


def print_new_dataset(found: NewDataset) -> None:
    """Print what a folder holds, what is odd, and what was written."""
    out.print(Text(printable(f"{found.folder}: {found.described}, {found.found_by}"), style="bold"))
    for note in found.notes:
        out.print(note)
    out.print(_facts_table(found))
    out.print()
    out.print(_split_in_words(found))
    out.print(_parts_table(found))
    _print_odd(found.odd)
    out.print()
    out.print(_what_was_written(found))
    for sentence in _warnings(found):
        out.print(sentence)


def print_next_commands(
    found: NewDataset, *, root: Path, datasets: Path | None, is_prepared: bool
) -> None:
    """Print the commands that come next, as a person types them.

    Args:
        found: the data set.
        root: the folder of prepared data.
        datasets: the folder of the YAML, if the next commands must be told the folder.
        is_prepared: whether the data set is prepared already.
    """
    place = "" if datasets is None else f" --datasets {shlex.quote(str(datasets))}"
    data = "" if root == Path("data") else f" --root {shlex.quote(str(root))}"
    run = f"runs/{found.name}"
    # Without a val part, no epoch can be chosen.
    choice = "" if any(found.parts["val"].values()) else " --set selection=last"
    commands = [] if is_prepared else [f"avsnn prepare {found.name}{data}{place}"]
    commands.append(f"avsnn train {found.name} --run {run}{choice}{data}{place}")
    commands.append(f"avsnn evaluate {run}{place}")
    out.print()
    out.print("Next:")
    for command in commands:
        out.print(f"  {command}", soft_wrap=True)


def to_json(found: NewDataset) -> dict[str, Any]:
    """Return the same facts for a program."""
    facts = asdict(found)
    return facts | {name: str(facts[name]) for name in ("folder", "yaml", "table")}


def _facts_table(found: NewDataset) -> Table:
    facts = found.facts
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows = {
        "clips": f"{sum(found.classes.values()):,} in {len(found.classes):,} classes",
        "length": _lengths(facts.seconds),
        "frame rate": _values(facts.fps, "/s"),
        "frame size": _values(facts.sizes, " px"),
        "sample rate": _values(facts.rates, " Hz"),
        "headers read": ""
        if facts.files_read in (0, facts.files)
        else f"{facts.files_read:,} of {facts.files:,} files; lengths and rates are of these",
        "groups": _groups(found),
    }
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    return table


def _lengths(seconds: tuple[float, float, float] | None) -> str:
    if seconds is None:
        return ""
    shortest, middle, longest = (f"{value:,.1f}" for value in seconds)
    return f"{middle} s (median); {shortest} to {longest} s"


def _values(counts: Mapping[str, int], unit: str) -> str:
    """Return the values with their counts; a value that all files have stands alone."""
    if len(counts) < 2:
        return "".join(f"{value}{unit}" for value in counts)
    shown = [f"{value}{unit} ({count:,})" for value, count in [*counts.items()][:VALUES_LISTED]]
    hidden = len(counts) - VALUES_LISTED
    return ", ".join(shown) + (f" and {hidden:,} more" if hidden > 0 else "")


def _groups(found: NewDataset) -> str:
    if not found.groups:
        return "none: every clip is a group of its own; --group REGEX gives speakers or recordings"
    text = f"{found.groups:,} {found.group_word}{'s' * (found.groups != 1)}"
    if found.guess is None:
        return text
    where = "folder" if found.guess.in_folder else "file name"
    return (
        f"{text}, guessed from the {where}: {found.guess.group!r} in {found.guess.path}. If this "
        f"is wrong, add --group REGEX or --group none; the guess is --group '{found.guess.pattern}'"
    )


def _split_in_words(found: NewDataset) -> str:
    words = {"given": "the parts that folders or the table give"}
    drawn = "drawn by avsnn, always in the same way"
    if found.groups:
        drawn = f"no {found.group_word} is in two parts"
    return f"split {found.split}: {words.get(found.split, drawn)}"


def _parts_table(found: NewDataset) -> Table:
    table = Table()
    table.add_column("class", overflow="fold")
    for name in ("clips", *found.parts):
        table.add_column(name, justify="right")
    for label in [*found.classes][:CLASSES_LISTED]:
        counts = [part[label] for part in found.parts.values()]
        table.add_row(label, f"{found.classes[label]:,}", *(f"{count:,}" for count in counts))
    if (hidden := len(found.classes) - CLASSES_LISTED) > 0:
        table.add_row(f"and {hidden:,} more; --json lists all")
    table.add_section()
    totals = [sum(part.values()) for part in found.parts.values()]
    table.add_row("all", f"{sum(found.classes.values()):,}", *(f"{count:,}" for count in totals))
    return table


def _print_odd(odd: list[Oddity]) -> None:
    for title, left_out in (("Left out", True), ("Odd, and in the data set", False)):
        found = [one for one in odd if one.left_out is left_out]
        if not found:
            continue
        out.print()
        out.print(f"{title}:")
        for one in found:
            out.print(f"  {one}")


def _what_was_written(found: NewDataset) -> str:
    files = f"{_short(found.yaml)} and {found.table.name}"
    if not found.is_update:
        return f"Data set {found.name} is ready: wrote {files}."
    if not found.is_written:
        return f"Nothing has changed: {files} stay as they are."
    counts = {"new": found.new, "gone": found.gone, "changed": found.changed}
    words = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    return f"Data set {found.name} is updated ({words or 'settings'}): wrote {files}."


def _short(path: Path) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111 - a machine may have no home folder
    return f"~{str(path)[len(home) :]}" if str(path).startswith(f"{home}/") else str(path)


def _warnings(found: NewDataset) -> list[str]:
    """Return sentences on parts and classes without clips."""
    sentences = []
    for part, counts in found.parts.items():
        missing = [label for label, count in counts.items() if not count]
        if len(missing) == len(counts):
            why = ""
            if 0 < found.groups < len(found.parts):
                why = f" There are {found.groups} {found.group_word}s only, each in one part."
            sentences.append(f"The {part} part has no clips.{why}")
        elif missing:
            names = ", ".join(missing[:VALUES_LISTED]) + (", …" * (len(missing) > VALUES_LISTED))
            count = f"{len(missing):,} classes" if len(missing) > 1 else "one class"
            sentences.append(f"The {part} part has no clips of {count}: {names}.")
    return sentences
