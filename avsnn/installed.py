"""What installed packages offer avsnn by entry points, found by name and imported only when used.

A package offers a method, for instance, by a line in the group ``avsnn.methods`` of its entry
points. The lines are text, so a list of names imports nothing.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, NamedTuple

from avsnn.suggestions import did_you_mean, there_are

# False inside `nothing_imported`.
_is_open = True


class PackageError(ValueError):
    """A package cannot give what it offers. The message names package, version and error."""


class Offer(NamedTuple):
    """One entry point of an installed package.

    Attributes:
        point: the entry point.
        package: name of the package.
        version: version of the package.
    """

    point: EntryPoint
    package: str
    version: str

    def load(self) -> Any:
        """Import the module that the entry point names, and return the object.

        Raises:
            PackageError: the module or the object is missing, or the code of the module raised an
                exception.
        """
        try:
            # What a package prints must not stand among results, such as settings or JSON.
            with redirect_stdout(sys.stderr):
                return self.point.load()
        except (Exception, SystemExit) as error:
            raise self.fault(f"{type(error).__name__}: {error}") from error

    def fault(self, reason: str) -> PackageError:
        """Return the error that the package cannot be used, with the first line of a reason."""
        reason = (reason.strip() or "no message").splitlines()[0].rstrip(".")
        return PackageError(
            f"the package {self.package} {self.version} offers {self.point.name!r} and cannot be "
            f"used ({reason}); repair or remove the package"
        )

    @property
    def place(self) -> Path | None:
        """The folder of the package's code, or its file; None if the code is not imported."""
        names = self.point.module.split(".")
        for count in range(1, len(names) + 1):
            file = getattr(sys.modules.get(".".join(names[:count])), "__file__", None)
            if file is not None:
                path = Path(file)
                return path.parent if path.name == "__init__.py" else path
        return None


def offer_of(group: str, name: str) -> Offer | None:
    """Return what a package offers under a name; None if no package does.

    Args:
        group: group of entry points, such as ``avsnn.methods``.
        name: name of the entry point.

    Raises:
        PackageError: two packages offer the name.
    """
    found = _offers(group).get(name, []) if _is_open else []
    if len(found) > 1:
        both = " and ".join(f"{offer.package} {offer.version}" for offer in found)
        raise PackageError(f"the packages {both} both offer {name!r}; remove all but one of them")
    return found[0] if found else None


def offered_names(group: str) -> list[str]:
    """Return the names that packages offer in a group; nothing is imported."""
    return sorted(_offers(group)) if _is_open else []


def unknown_name(noun: str, group: str, name: str, known: list[str]) -> str:
    """Return the sentence for a name that nobody has.

    Args:
        noun: what the name should be the name of, such as ``method``.
        group: group of entry points that could offer the name.
        name: the name.
        known: names that avsnn has itself, or that a file added.
    """
    names = [*known, *(other for other in offered_names(group) if other not in known)]
    return f"there is no {noun} '{name}'; {did_you_mean(name, names)}{there_are(name, names)}."


def installed_version(package: str) -> str | None:
    """Return the version of an installed package; None if the package is not installed."""
    try:
        return version(package)
    except (PackageNotFoundError, ValueError):
        return None


@contextmanager
def nothing_imported() -> Iterator[None]:
    """Find nothing in packages inside the context, so that none of their code runs."""
    global _is_open
    before, _is_open = _is_open, False
    try:
        yield
    finally:
        _is_open = before


@cache
def _offers(group: str) -> dict[str, list[Offer]]:
    """Return the entry points of a group by name; a name has several if packages share it."""
    found: dict[str, list[Offer]] = {}
    for point in entry_points(group=group):
        about = point.dist
        package, number = (about.name, about.version) if about else (None, None)
        offer = Offer(point, package or "without a name", number or "unknown")
        found.setdefault(point.name, []).append(offer)
    return found
