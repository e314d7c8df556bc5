"""What is odd about the files of a folder, counted, with examples."""

from collections.abc import Iterable
from dataclasses import dataclass, field

SINGULAR = {"files": "file", "videos": "video", "classes": "class", "rows": "row"}


@dataclass
class Oddity:
    """One thing that is odd.

    Attributes:
        what: what is odd about each example, as the end of the sentence "cat/1.mp4 …".
        kind: what the examples are: files, videos, classes or rows.
        left_out: whether the examples are not in the data set.
        examples: paths of files, or names, in the order in which they were found.
    """

    what: str
    kind: str
    left_out: bool
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = len(self.examples) - 1
        kind = self.kind if more != 1 else SINGULAR[self.kind]
        return f"{self.examples[0]} {self.what}" + (f" (and {more:,} more {kind})" if more else "")


class Oddities:
    """Collects what is odd, in the order in which the odd things are found."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, bool], Oddity] = {}

    def add(
        self, what: str, examples: Iterable[str], *, kind: str = "files", left_out: bool = True
    ) -> None:
        """Add examples of one odd thing; no examples add nothing."""
        for example in examples:
            oddity = Oddity(what, kind, left_out)
            self._found.setdefault((what, kind, left_out), oddity).examples.append(example)

    def all(self) -> list[Oddity]:
        """Return everything that is odd: what was left out first, most examples first."""
        return sorted(
            self._found.values(), key=lambda odd: (not odd.left_out, -len(odd.examples), odd.what)
        )

    def take(self, other: "Oddities") -> None:
        """Add everything that another collection holds."""
        for odd in other.all():
            self.add(odd.what, odd.examples, kind=odd.kind, left_out=odd.left_out)
