"""Refuses settings whose training or evaluation cannot fit in memory, before the computation."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import nn

from avsnn.errors import RunError, UserError
from avsnn.models.layers import SpikingConv1x1
from avsnn.models.patch_split import PATCH_SPLITS
from avsnn.models.zoo import build
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.sample_shapes import SampleShapes, has_steps, input_shapes
from avsnn.pipeline.runs.train_settings import TrainSettings

# A weight, its gradient and two moments of AdamW, as float32.
BYTES_PER_PARAMETER = 16

# Memory that a step takes, for each byte of the outputs of its convolutions: 2.8 and 3.1 on a CPU,
# at the size of the demo and at the published size; 1.9 on a GPU. A little less is asked for, so
# that nothing is refused that fits.
KEPT_BESIDE_OUTPUTS = {"cpu": 2.6, "cuda": 1.7}

# Files in which Linux keeps the limit of memory of a container, in bytes.
CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)

# What a person can do about a training, and about the evaluation of a run whose settings are fixed.
TRAINING_ADVICE = (
    "lower batch_size, model.steps, model.channels or data.size, or raise optimizer.accumulate"
)
EVALUATION_ADVICE = "evaluate the run on a machine or a device with more memory"

# Words of the errors that torch raises if there is no memory.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


def require_memory(
    config: RunConfig, shapes: SampleShapes, device: torch.device, *, processes: int
) -> None:
    """Refuse a training that needs more memory than the device has.

    Args:
        config: the configuration of the run.
        shapes: shapes of the samples.
        device: the device that computes.
        processes: number of processes that share out every batch.

    Raises:
        UserError: the weights and what a step must keep are larger than all memory.
    """
    settings = config.settings
    clips = settings.batch_size // (processes * settings.optimizer.accumulate)
    stages = _bytes_of_stages(settings, shapes, clips=clips)
    model = _network_without_weights(config, shapes)
    blocks = _bytes_of_blocks(settings, model, clips=clips)
    # Only one stage at a time is kept for the backward pass of `recompute`.
    step = max(stages) if settings.compute.recompute else sum(stages) + blocks
    step = round(step * KEPT_BESIDE_OUTPUTS[device.type])
    _require_bytes(
        BYTES_PER_PARAMETER * _parameters(model) + step, device, "these settings", TRAINING_ADVICE
    )


def require_memory_to_evaluate(
    config: RunConfig, shapes: SampleShapes, device: torch.device, *, clips: int
) -> None:
    """Refuse an evaluation that needs more memory than the device has.

    Args:
        config: the configuration of the run.
        shapes: shapes of the samples.
        device: the device that computes.
        clips: number of clips of the largest batch.

    Raises:
        UserError: the weights and the largest layer of a batch are larger than all memory.
    """
    model = _network_without_weights(config, shapes)
    needed = 4 * _parameters(model) + max(_bytes_of_stages(config.settings, shapes, clips=clips))
    _require_bytes(needed, device, "the evaluation of this run", EVALUATION_ADVICE)


def _require_bytes(needed: int, device: torch.device, what: str, advice: str) -> None:
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    else:
        there = _memory_of_machine()
    if needed > there:
        verb = "need" if what.endswith("settings") else "needs"
        raise UserError(
            f"{what} {verb} more than {needed / 1e9:,.0f} GB of memory, and {device.type} has "
            f"{there / 1e9:,.0f} GB: {advice}."
        )


def _memory_of_machine() -> int:
    """Return the bytes of memory that this machine, or the container around the process, has."""
    if sys.platform == "win32":
        # Python does not know the memory of a machine with Windows, so no work is too large there.
        return sys.maxsize
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in CONTAINER_LIMITS:
        # The file holds the word `max` where there is no limit.
        with suppress(OSError, ValueError):
            found.append(int(path.read_text()))
    return min(found)


@contextmanager
def lack_of_memory_said(what_now: str) -> Iterator[None]:
    """Turn every error that says that memory ran out into one sentence.

    Args:
        what_now: what is saved and what a person can do, as the end of the sentence.

    Raises:
        RunError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch raises a plain RuntimeError if a CPU has no memory left.
        if isinstance(error, RuntimeError) and not any(w in str(error) for w in NO_MEMORY):
            raise
        reason = (str(error) or "MemoryError").splitlines()[0]
        raise RunError(f"there is not enough memory ({reason}). {what_now}.") from None


def _parameters(model: nn.Module | None) -> int:
    """Return the number of parameters of a network; 0 without a network."""
    return sum(parameter.numel() for parameter in model.parameters()) if model else 0


def _bytes_of_blocks(settings: TrainSettings, model: nn.Module | None, *, clips: int) -> int:
    """Return the bytes of the outputs of all 1x1 convolutions, in every time step."""
    if model is None:
        return 0
    channels = sum(m.conv.out_channels for m in model.modules() if isinstance(m, SpikingConv1x1))
    # Every stage of the patch split halves both sides.
    side = settings.data.size >> len(PATCH_SPLITS[settings.model.patch_split])
    return settings.model.steps * clips * channels * side * side * _bytes_per_number(settings)


def _network_without_weights(config: RunConfig, shapes: SampleShapes) -> nn.Module | None:
    """Return the network of a run on the device ``meta``, which keeps no weights."""
    settings = config.settings
    try:
        with torch.device("meta"):
            return build(
                settings.model,
                classes=len(config.manifest.classes),
                audio_channels=shapes.audio[-3],
                visual_channels=shapes.frames[-3],
                tokens=1,
            )
    except Exception:
        # `build_network` builds the same network, and says why the settings make no network. The
        # code of a plugin may raise any exception, also because of the device `meta`.
        return None


def _bytes_per_number(settings: TrainSettings) -> int:
    return 2 if settings.compute.precision == "bf16" else 4


def _bytes_of_stages(settings: TrainSettings, shapes: SampleShapes, *, clips: int) -> list[int]:
    """Return the bytes of the output of every convolution of the patch splits of all streams.

    The stages after the first have T time steps; of an input with a T axis, the first stage too.
    """
    model, size = settings.model, settings.data.size
    inputs = input_shapes(shapes, settings)
    streams = {"audio": inputs.audio, "visual": inputs.frames}
    if model.method in streams:
        streams = {model.method: streams[model.method]}
    return [
        (model.steps if number or has_steps(shape) else 1)
        * clips
        * (model.channels // divisor)
        * (size // 2**number) ** 2
        * _bytes_per_number(settings)
        for shape in streams.values()
        for number, divisor in enumerate(PATCH_SPLITS[model.patch_split])
    ]
