"""The network of a run, untrained or with the weights of a checkpoint."""

from pathlib import Path

import torch
from torch import Tensor, nn

from avsnn.errors import UserError
from avsnn.models.patch_split import PATCH_SPLITS
from avsnn.models.zoo import build
from avsnn.pipeline.inference.device import wants_channels_last
from avsnn.pipeline.runs.checkpoint import parse_checkpoint
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.needed_plugins import require_same_method
from avsnn.pipeline.runs.plugin import plugin_faults_said
from avsnn.pipeline.runs.sample_shapes import SampleShapes, input_shapes, is_events
from avsnn.pipeline.runs.train_settings import TrainSettings

# Side in px of the patches of the shallow patch split, which cuts the smallest patches.
SMALLEST_PATCH = 2 ** min(map(len, PATCH_SPLITS.values()))


def build_network(config: RunConfig, shapes: SampleShapes) -> nn.Module:
    """Build the untrained network of a run; torch's default generator draws the weights.

    Args:
        config: the configuration of the run.
        shapes: shapes of the samples, which say the numbers of channels.

    Raises:
        UserError: the settings contradict each other or the event frames, or the network cannot
            take images of ``data.size``.
    """
    _require_event_sizes(config, shapes)
    settings, size = config.settings.model, config.settings.data.size
    patch = 2 ** len(PATCH_SPLITS[settings.patch_split])
    try:
        with plugin_faults_said(settings.method, elsewhere=True), torch.no_grad():
            model = build(
                settings,
                classes=len(config.manifest.classes),
                audio_channels=shapes.audio[-3],
                visual_channels=shapes.frames[-3],
                tokens=(size // patch) ** 2,
            ).eval()
            inputs = input_shapes(shapes, config.settings)
            model(*map(_blank_input, (inputs.audio, inputs.frames)))
    except ValueError as error:
        fitting = max(1, round(size / patch)) * patch
        advice = "" if size == fitting else f" Try --set data.size={fitting}."
        raise UserError(f"these settings make no network: {error}{advice}") from None
    return model


def _require_event_sizes(config: RunConfig, shapes: SampleShapes) -> None:
    """Refuse settings that do not fit the event frames of the prepared data.

    Raises:
        UserError: the frames have another number of time steps or another size, or no patch split
            of the settings can cut frames of this size.
    """
    settings, steps = config.settings, config.settings.model.steps
    prepare = f"prepare them again with 'avsnn prepare {config.dataset} --set"
    root = f"--root {config.root}'"
    if shapes.steps not in (None, steps):
        raise UserError(
            f"model.steps is {steps}, but the event frames of {config.dataset} have "
            f"{shapes.steps} time steps: add --set model.steps={shapes.steps}, or {prepare} "
            f"events.steps={steps} {root}."
        )
    height, width = shapes.frames[-2:]
    size, split = settings.data.size, settings.model.patch_split
    if not is_events(shapes.frames):
        return
    if height != width:
        side = min(height, width)
        raise UserError(
            f"the event frames of {config.dataset} are {height} x {width} px, and a network reads "
            f"squares only: {prepare} events.crop={side} {root}."
        )
    if height % SMALLEST_PATCH:
        raise UserError(
            f"no patch split can cut event frames of {height} x {width} px, because both sides "
            f"must be multiples of {SMALLEST_PATCH}: {prepare} "
            f"events.crop={-(-height // SMALLEST_PATCH) * SMALLEST_PATCH} {root}; pixels beyond "
            "the sensor are 0."
        )
    if height != size:
        raise UserError(
            f"data.size is {size}, but the event frames of {config.dataset} are {height} x {width} "
            f"px, and event frames are never resized: add --set data.size={height}, or {prepare} "
            f"events.crop={size} {root}."
        )
    if split == "deep" and size % 2 ** len(PATCH_SPLITS[split]):
        raise UserError(
            f"the deep patch split cannot cut event frames of {height} x {width} px, because both "
            "sides must be multiples of 16: add --set model.patch_split=shallow, as published."
        )


def _blank_input(shape: tuple[int, ...]) -> Tensor:
    """Return an input of one clip, of a shape of `InputShapes`."""
    return torch.zeros(*shape[:-3], 1, *shape[-3:])


def place_network(model: nn.Module, settings: TrainSettings, device: torch.device) -> nn.Module:
    """Move a network to a device, into the memory format that the kernels of the device read."""
    if wants_channels_last(settings, device):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(device)


def load_network(
    config: RunConfig, shapes: SampleShapes, checkpoint: Path, content: bytes
) -> tuple[nn.Module, int]:
    """Return the network of a run with the weights of a checkpoint, and the epoch of the weights.

    Args:
        config: the configuration of the run.
        shapes: shapes of the samples.
        checkpoint: path of the checkpoint, for messages.
        content: the bytes of the checkpoint.

    Raises:
        UserError: the checkpoint does not fit the run, or a plugin of the run has changed.
    """
    # The folder of the checkpoint lies in the run folder.
    require_same_method(config.settings, config.plugins, checkpoint.parents[1])
    model = build_network(config, shapes)
    weights, facts = parse_checkpoint(checkpoint, content)
    try:
        model.load_state_dict(weights)
        return model, int(facts["epoch"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{checkpoint} does not fit its run ({reason}); train it again.") from None
