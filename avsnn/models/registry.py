"""Registries: what can be chosen by name, such as the methods and the surrogates.

avsnn fills a registry while the package ``avsnn.models`` is imported. Code outside the package may
add entries later, and installed packages offer entries by entry points, which are imported when
their name is asked for. ``ModelSettings`` checks its fields against the registries, and
``zoo.build`` builds the network of a registered method.
"""

from __future__ import annotations

import re
from collections import UserDict
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from avsnn.installed import Offer, PackageError, offer_of, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from avsnn.pydantic_base import StrictModel

E = TypeVar("E")

# The name of a method is part of the name of a run folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# What a `Method` has.
PARTS = ("can_align", "own_settings", "takes_options", "chooses_readout", "network")


class Sizes(NamedTuple):
    """Sizes that the data set decides and the settings do not hold.

    Attributes:
        classes: number of classes.
        audio_channels: channels of the audio image.
        visual_channels: channels of the visual image.
        tokens: number N of tokens, or None if the caller does not know N.
    """

    classes: int
    audio_channels: int
    visual_channels: int
    tokens: int | None


class Method(Protocol):
    """A network that can be built: one entry of the registry."""

    @property
    def can_align(self) -> bool:
        """Whether the semantic alignment loss can be used with this method."""

    @property
    def own_settings(self) -> type[StrictModel] | None:
        """Class of the settings that only this method has; None if there are none."""

    @property
    def takes_options(self) -> bool:
        """Whether the method takes settings of its own that no class describes."""

    @property
    def chooses_readout(self) -> bool:
        """Whether the ``fuse`` setting decides how the head joins the streams."""

    def network(self, settings: Any, sizes: Sizes) -> nn.Module:
        """Build the network.

        Args:
            settings: a ``ModelSettings``. The type is ``Any`` because ``settings.py`` imports this
                module, and this module must not import ``settings.py`` back.
            sizes: sizes that the data set decides.
        """


class RegistryError(ValueError):
    """Something cannot be registered."""


class MethodError(RegistryError):
    """A method cannot be registered, or computes something else than a method must compute."""


class Registry(UserDict[str, E], Generic[E]):
    """What can be chosen by name.

    ``registry[name]`` imports a package that offers the name, unless the name is registered. The
    loop over a registry gives what is registered, and imports nothing.

    Args:
        noun: what an entry is, such as ``method``.
        group: group of entry points by which packages offer entries.
        check: raises a `RegistryError` if an object cannot be an entry; gets name and object.

    Attributes:
        protected: names that stay as they are: nobody may register another entry under the name.
        offers: the package of every registered entry that came from a package.
    """

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
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise RegistryError(
                f"{name!r} is no name of a {self.noun}; a name has up to 64 letters, digits, '-', "
                "'_' and '.'"
            )
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


def _check_method(name: str, method: Any) -> None:
    if not all(hasattr(method, part) for part in PARTS):
        given = getattr(method, "__name__", "") or f"a {type(method).__name__}"
        raise MethodError(
            f"the method {name!r} must be TwoStreams(CLASS), with TwoStreams of "
            f"avsnn.models.methods, not {given}"
        )


METHODS: Registry[Method] = Registry("method", group="avsnn.methods", check=_check_method)
