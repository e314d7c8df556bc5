"""The registry of methods: every network that can be built, by name.

``methods.py`` fills the registry while the package ``avsnn.models`` is imported, and code outside
the package may add methods later. ``ModelSettings`` checks its fields against the registry, and
``zoo.build`` builds the network of a registered method.
"""

from __future__ import annotations

import re
from collections import UserDict
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import nn

# The name of a method is part of the name of a run folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# What a `Method` has.
PARTS = ("can_align", "takes_options", "chooses_readout", "network")


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
    def takes_options(self) -> bool:
        """Whether the method reads the ``options`` of the settings."""

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


class MethodError(ValueError):
    """A method cannot be registered, or computes something else than a method must compute."""


class Registry(UserDict[str, Method]):
    """The methods by name.

    Attributes:
        protected: names that stay as they are: nobody may register another method under the name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.protected: frozenset[str] = frozenset()

    def protect(self) -> None:
        """Keep every method that is registered now."""
        self.protected = frozenset(self)

    def __setitem__(self, name: str, method: Method) -> None:
        """Register a method.

        Raises:
            MethodError: the name is no name of a method, or is the name of a method that stays.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise MethodError(
                f"{name!r} is no name of a method; a name has up to 64 letters, digits, '-', '_' "
                "and '.'"
            )
        if name in self.protected:
            raise MethodError(f"there is a method {name!r} already; choose another name")
        if not all(hasattr(method, part) for part in PARTS):
            given = getattr(method, "__name__", "") or f"a {type(method).__name__}"
            raise MethodError(
                f"the method {name!r} must be TwoStreams(CLASS), with TwoStreams of "
                f"avsnn.models.methods, not {given}"
            )
        super().__setitem__(name, method)


METHODS = Registry()
