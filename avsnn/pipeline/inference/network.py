"""The network of a run, untrained or with the weights of a checkpoint."""

from pathlib import Path

import torch
from torch import nn

from avsnn.errors import UserError
from avsnn.models.patch_split import PATCH_SPLITS
from avsnn.models.zoo import build
from avsnn.pipeline.inference.device import wants_channels_last
from avsnn.pipeline.runs.checkpoint import parse_checkpoint
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.train_settings import TrainSettings


def build_network(config: RunConfig) -> nn.Module:
    """Build the untrained network of a run; torch's default generator draws the weights.

    Raises:
        UserError: the settings contradict each other, or the network cannot take images of
            ``data.size``.
    """
    settings, size = config.settings.model, config.settings.data.size
    patch = 2 ** len(PATCH_SPLITS[settings.patch_split])
    try:
        model = build(
            settings, classes=len(config.manifest.classes), tokens=(size // patch) ** 2
        ).eval()
        with torch.no_grad():
            model(torch.zeros(1, 1, size, size), torch.zeros(1, 3, size, size))
    except ValueError as error:
        raise UserError(f"these settings make no network: {error}") from None
    return model


def place_network(model: nn.Module, settings: TrainSettings, device: torch.device) -> nn.Module:
    """Move a network to a device, into the memory format that the kernels of the device read."""
    if wants_channels_last(settings, device):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(device)


def load_network(config: RunConfig, checkpoint: Path, content: bytes) -> tuple[nn.Module, int]:
    """Return the network of a run with the weights of a checkpoint, and the epoch of the weights.

    Args:
        config: the configuration of the run.
        checkpoint: path of the checkpoint, for messages.
        content: the bytes of the checkpoint.

    Raises:
        UserError: the checkpoint does not fit the run.
    """
    model = build_network(config)
    weights, facts = parse_checkpoint(checkpoint, content)
    try:
        model.load_state_dict(weights)
        return model, int(facts["epoch"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{checkpoint} does not fit its run ({reason}); train it again.") from None
