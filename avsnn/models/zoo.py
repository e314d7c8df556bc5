"""Build networks from settings, or from the weights of the authors' implementation.

This module is what callers of the package import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsnn.models.authors_checkpoint import AuthorsState, import_authors_state
from avsnn.models.methods import METHODS
from avsnn.models.registry import Sizes
from avsnn.models.settings import ModelSettings, check_settings

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
    """Build a network with fresh weights from torch's default random generator.

    Args:
        settings: the model.
        classes: number of classes.
        audio_channels: channels of the audio image.
        visual_channels: channels of the visual image: 3 for RGB, 2 for the polarities of an event
            camera.
        tokens: number N of tokens; only a learned position bias needs N.

    Returns:
        a module that is called as ``model(audio, visual)`` and returns ``spikformer.Output``.

    Raises:
        ValueError: the settings contradict each other or the sizes; the message is one sentence.
    """
    # `model_copy` makes settings without running the validators, so check the settings again.
    check_settings(settings)
    if classes < 2:
        raise ValueError(f"A classifier needs at least 2 classes, not {classes}.")
    if audio_channels < 1 or visual_channels < 1:
        raise ValueError("Audio and visual input need at least one channel each.")
    sizes = Sizes(classes, audio_channels, visual_channels, tokens)
    return METHODS[settings.method].network(settings, sizes)
