"""Networks from settings, and from the weights of the authors' implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsnn.models.authors import AuthorsState, import_authors_state
from avsnn.models.methods import METHODS, Sizes
from avsnn.models.settings import ModelSettings, check

if TYPE_CHECKING:
    from torch import nn

__all__ = ["METHODS", "AuthorsState", "ModelSettings", "build", "import_authors_state"]


def build(
    settings: ModelSettings,
    *,
    classes: int,
    audio_channels: int = 1,
    visual_channels: int = 3,
    tokens: int | None = None,
) -> nn.Module:
    """Build a network with fresh weights from torch's default generator.

    Args:
        settings: the model.
        classes: number of classes.
        audio_channels: channels of the audio image.
        visual_channels: 3 for RGB, 2 for the polarities of an event camera.
        tokens: N, needed only by a learned position bias.

    Returns:
        a module called as ``model(audio, visual)``, which returns ``spikformer.Output``.

    Raises:
        ValueError: the settings contradict each other or the sizes; one sentence says how.
    """
    check(settings)
    if classes < 2:
        raise ValueError(f"A classifier needs at least 2 classes, not {classes}.")
    if audio_channels < 1 or visual_channels < 1:
        raise ValueError("Audio and visual input need at least one channel each.")
    sizes = Sizes(classes, audio_channels, visual_channels, tokens)
    return METHODS[settings.method].network(settings, sizes)
