"""Networks with fresh weights, from keywords."""

from typing import Any

from pydantic import ValidationError
from torch import nn

from avsnn.errors import UserError
from avsnn.models import zoo
from avsnn.pipeline.settings_overrides import first_mistake


def build(
    method: str = "s-cmrl",
    *,
    classes: int,
    audio_channels: int = 1,
    visual_channels: int = 3,
    tokens: int | None = None,
    **settings: Any,
) -> nn.Module:
    """Build a network with fresh weights; torch's default generator draws the weights.

    Args:
        method: name of the network; ``avsnn.models.zoo.METHODS`` lists the names.
        classes: number of classes.
        audio_channels: channels of the audio image.
        visual_channels: channels of the visual image: 3 for RGB, 2 for the polarities of an event
            camera.
        tokens: number N of tokens; only a learned position bias needs N.
        **settings: any field of ``avsnn.models.zoo.ModelSettings``, such as ``channels=256``,
            ``steps=4`` or ``alpha=1.5``; the published values by default.

    Returns:
        a module that is called as ``model(audio, visual)`` and returns
        ``avsnn.models.spikformer.Output``.

    Raises:
        UserError: a setting is wrong, or the settings contradict each other.
    """
    try:
        return zoo.build(
            zoo.ModelSettings(method=method, **settings),
            classes=classes,
            audio_channels=audio_channels,
            visual_channels=visual_channels,
            tokens=tokens,
        )
    except ValidationError as error:
        raise UserError(f"these settings make no network: {first_mistake(error)}.") from None
    except ValueError as error:
        raise UserError(f"these settings make no network: {error}") from None
