"""The two consoles, and the small things that all of `screen` prints with."""

import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from avsnn.cli.streams import printable
from avsnn.cli.volume import volume
from avsnn.pipeline.engine.progress import CourseOfWork


class PlainConsole(Console):
    """A console that shows every string as it is: no markup, and control characters escaped."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a string into rich's text; tables, titles and sentences pass through here."""
        return super().render_str(printable(text), **options)


def _make_console(*, stderr: bool) -> PlainConsole:
    stream = sys.stderr if stderr else sys.stdout
    return PlainConsole(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        # A pipe or a file gets long lines unbroken, so that other programs can read the lines.
        soft_wrap=stream is None or not stream.isatty(),
    )


# Results go to stdout, everything about the progress goes to stderr.
out = _make_console(stderr=False)
err = _make_console(stderr=True)


def say(sentence: str) -> None:
    """Print one sentence on stderr; with --quiet, only if the sentence is a warning."""
    if not (volume.quiet and isinstance(sentence, CourseOfWork)):
        err.print(sentence)


def can_ask() -> bool:
    """Return whether a person can answer a question: the words come from a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirm(question: str) -> bool:
    """Ask a question on stderr, and return whether the answer is yes; the default is no."""
    err.print(f"{question} [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def print_json(value: Any) -> None:
    """Print a value as indented JSON, on stdout."""
    print(json.dumps(value, indent=1))


def is_follower() -> bool:
    """Return whether torchrun started this process with a rank other than 0.

    Only the process of rank 0 prints, so that a sentence of all processes is printed once.
    """
    rank, count = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return rank.isdecimal() and count.isdecimal() and 0 < int(rank) < int(count)


def format_bytes(count: float) -> str:
    """Return a number of bytes with a unit of 1,000: `22.0 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
