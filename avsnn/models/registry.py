"""The registry of methods: every network that can be built, by name.

``methods.py`` fills the registry while the package ``avsnn.models`` is imported. ``ModelSettings``
checks its fields against the registry, and ``zoo.build`` builds the network of a registered method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import nn


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
    def chooses_readout(self) -> bool:
        """Whether the ``fuse`` setting decides how the head joins the streams."""

    def network(self, settings: Any, sizes: Sizes) -> nn.Module:
        """Build the network.

        Args:
            settings: a ``ModelSettings``. The type is ``Any`` because ``settings.py`` imports this
                module, and this module must not import ``settings.py`` back.
            sizes: sizes that the data set decides.
        """


METHODS: dict[str, Method] = {}
