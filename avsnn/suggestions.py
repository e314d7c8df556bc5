"""The right word for a word that does not exist."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

# Words that are less alike than this, from 0 to 1, are different words.
LEAST_LIKENESS = 0.6


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return ``did you mean NAME? `` with the name that is most like a word; empty if none is."""
    best = nearest(word, names)
    return f"did you mean {best}? " if best else ""


def nearest(word: str, names: Iterable[str]) -> str:
    """Return the name that is most like a word; empty if none is like the word."""
    likeness = {name: _likeness(_bare(word), _bare(name)) for name in names}
    best = max(likeness, key=lambda name: likeness[name], default="")
    return best if likeness.get(best, 0) >= LEAST_LIKENESS else ""


def _bare(word: str) -> str:
    """Return a word without case and without what people write in place of a hyphen."""
    return re.sub(r"[^a-z0-9.]", "", word.lower())


def _likeness(word: str, name: str) -> float:
    """Compare two words, and their parts after the last dot, which a person may give alone."""
    whole = SequenceMatcher(None, word, name).ratio()
    last, last_of_name = word.split(".")[-1], name.split(".")[-1]
    if last and last_of_name.endswith(last):
        return max(whole, 0.9 if last != last_of_name else 1.0)
    return max(whole, SequenceMatcher(None, last, last_of_name).ratio() - 0.01)
