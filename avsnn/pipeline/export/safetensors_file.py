"""safetensors: the weights with their description, for avsnn itself."""

from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from avsnn.errors import UserError
from avsnn.models.settings import ModelSettings
from avsnn.models.zoo import build
from avsnn.pipeline.export.run_network import RunNetwork
from avsnn.pipeline.runs.checkpoint import Checkpoint, pack_checkpoint, read_checkpoint


def safetensors_file(network: RunNetwork) -> bytes:
    """Return weights and description of the network as a safetensors file.

    The metadata hold JSON under ``avsnn`` with the keys of the files that ``convert-checkpoint``
    writes: ``settings``, ``classes`` (a number) and ``visual_channels``. Further keys are
    ``audio_channels``, ``tokens`` and ``description``.
    """
    about = network.description
    facts = {
        "settings": about.settings.model_dump(mode="json"),
        "classes": len(about.classes),
        "audio_channels": about.audio_channels,
        "visual_channels": about.visual_channels,
        "tokens": about.tokens,
        "description": about.model_dump(mode="json"),
    }
    return pack_checkpoint(Checkpoint(dict(network.model.state_dict()), facts))


def load_safetensors(path: str | Path) -> nn.Module:
    """Return the network of a file that ``export`` or ``convert-checkpoint`` wrote.

    Returns:
        the network on the CPU, in evaluation mode; it is called as ``model(audio, visual)``.

    Raises:
        UserError: the file is damaged, or holds no network.
        RunError: the machine cannot read the file.
    """
    weights, facts = read_checkpoint(Path(path))
    try:
        settings = ModelSettings.model_validate(facts["settings"])
        sizes = ("audio_channels", "visual_channels", "tokens")
        known = {name: facts[name] for name in sizes if name in facts}
        with torch.device("meta"):
            model = build(settings, classes=facts["classes"], **known)
        model.load_state_dict(weights, assign=True)
    except (ValidationError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} holds no network of avsnn ({reason}).") from None
    return model.eval().requires_grad_(requires_grad=False)
