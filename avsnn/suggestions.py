"""The right word for a word that does not exist."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

# Words that are less alike than this, from 0 to 1, are different words.
LEAST_LIKENESS = 0.6

# Likeness of a word and a name that begins with the word, if no single letter says more.
LIKENESS_OF_BEGINNING = 0.7

# A sentence lists so many names; of more names, a sentence shows the nearest.
MAX_NAMES = 12
NAMES_SHOWN = 7


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return ``did you mean NAME? `` with the name that is most like a word; empty if none is."""
    found = nearest(word, names)
    return f"did you mean {found}? " if found else ""


def nearest(word: str, names: Iterable[str]) -> str:
    """Return the name that is most like a word; empty if no name is like the word."""
    best = next(iter(nearest_first(word, names)), "")
    return best if best and _likeness(_bare(word), _bare(best)) >= LEAST_LIKENESS else ""


def there_are(word: str, names: Iterable[str]) -> str:
    """Return ``there are: NAME, NAME``; of many names, the names that are most like a word."""
    known = list(names)
    if len(known) <= MAX_NAMES:
        return f"there are: {', '.join(known)}"
    return f"there are {len(known)}, such as {', '.join(nearest_first(word, known)[:NAMES_SHOWN])}"


def nearest_first(word: str, names: Iterable[str]) -> list[str]:
    """Return names, sorted by their likeness to a word; equal names keep their order."""
    bare = _bare(word)

    def rank(name: str) -> float:
        # People rarely mistype the first letter: `prepair` is meant as prepare, not as repair.
        return -_likeness(bare, _bare(name)) - 0.1 * (bare[:1] == _bare(name)[:1])

    return sorted(names, key=rank)


def _bare(word: str) -> str:
    """Return a word without case and without what people write in place of a hyphen."""
    return re.sub(r"[^a-z0-9.]", "", word.lower())


def _likeness(word: str, name: str) -> float:
    """Compare two words, and their parts after the last dot, which a person may give alone."""
    whole = SequenceMatcher(None, word, name).ratio()
    if len(word) > 1 and name.startswith(word):
        whole = max(whole, LIKENESS_OF_BEGINNING)
    last, last_of_name = word.split(".")[-1], name.split(".")[-1]
    if last and last == last_of_name:
        return 1.0
    if len(last) > 1 and last_of_name.endswith(last):
        return max(whole, 0.9)
    return max(whole, SequenceMatcher(None, last, last_of_name).ratio() - 0.01)
