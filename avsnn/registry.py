"""Registries: what can be chosen by name, such as methods, surrogates and readers of files.

avsnn fills most registries itself. Files of the user may add entries, and installed packages offer
entries by entry points, which are imported when their name is asked for.
"""

from __future__ import annotations

import re
from collections import UserDict
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from avsnn.installed import Offer, PackageError, offer_of, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable

E = TypeVar("E")


class RegistryError(ValueError):
    """Something cannot be registered."""


class Registry(UserDict[str, E], Generic[E]):
    """What can be chosen by name.

    ``registry[name]`` imports a package that offers the name, unless the name is registered. The
    loop over a registry gives what is registered, and imports nothing.

    Args:
        noun: what an entry is, such as ``method``.
        group: group of entry points by which packages offer entries.
        check: raises a `RegistryError` if an object cannot be an entry; gets name and object.

    Attributes:
        form: what every name matches.
        form_in_words: the same for people.
        protected: names that stay as they are: nobody may register another entry under the name.
        offers: the package of every registered entry that came from a package.
    """

    # The name of a method is part of the name of a run folder.
    form: ClassVar[re.Pattern[str]] = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
    form_in_words: ClassVar[str] = "a name has up to 64 letters, digits, '-', '_' and '.'"

    def __init__(self, noun: str, *, group: str, check: Callable[[str, Any], None]) -> None:
        super().__init__()
        self.noun, self.group, self._check = noun, group, check
        self.protected: frozenset[str] = frozenset()
        self.offers: dict[str, Offer] = {}

    def protect(self) -> None:
        """Keep every entry that is registered now."""
        self.protected = frozenset(self)

    def require(self, name: str) -> None:
        """Check that there is an entry, and import the package that offers the entry.

        Raises:
            ValueError: there is no such entry, or the package that offers the entry has a fault.
        """
        if name not in self:
            raise ValueError(unknown_name(self.noun, self.group, name, list(self)))
        _ = self[name]

    def __setitem__(self, name: str, entry: E) -> None:
        """Register an entry.

        Raises:
            RegistryError: the name is no name, or is the name of an entry that stays; or the object
                is no entry.
        """
        if not isinstance(name, str) or not self.form.fullmatch(name):
            raise RegistryError(f"{name!r} is no name of a {self.noun}; {self.form_in_words}")
        if name in self.protected:
            raise RegistryError(f"there is a {self.noun} {name!r} already; choose another name")
        self._check(name, entry)
        super().__setitem__(name, entry)
        self.offers.pop(name, None)

    def __missing__(self, name: str) -> E:
        """Register what a package offers under a name.

        Raises:
            KeyError: no package offers the name.
            PackageError: two packages offer the name, or the package has a fault.
        """
        offer = offer_of(self.group, name) if isinstance(name, str) else None
        if offer is None:
            raise KeyError(name)
        try:
            self[name] = offer.load()
        except RegistryError as error:
            raise offer.fault(str(error)) from error
        self.offers[name] = offer
        return self.data[name]

    def __contains__(self, name: object) -> bool:
        """Return whether an entry is registered or offered; imports nothing."""
        if name in self.data or not isinstance(name, str):
            return name in self.data
        try:
            return offer_of(self.group, name) is not None
        except PackageError:
            # Two packages offer the name; `registry[name]` says so.
            return True
