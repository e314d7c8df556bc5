"""The registry of methods: what a method is.

avsnn fills the registry while the package ``avsnn.models`` is imported. ``ModelSettings`` checks
its fields against the registries, and ``zoo.build`` builds the network of a registered method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from avsnn.registry import Registry, RegistryError

if TYPE_CHECKING:
    from torch import nn

    from avsnn.pydantic_base import StrictModel

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


class MethodError(RegistryError):
    """A method cannot be registered, or computes something else than a method must compute."""


def _check_method(name: str, method: Any) -> None:
    if not all(hasattr(method, part) for part in PARTS):
        given = getattr(method, "__name__", "") or f"a {type(method).__name__}"
        raise MethodError(
            f"the method {name!r} must be TwoStreams(CLASS), with TwoStreams of "
            f"avsnn.models.methods, not {given}"
        )


METHODS: Registry[Method] = Registry("method", group="avsnn.methods", check=_check_method)
