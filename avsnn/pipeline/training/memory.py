"""Refuses settings whose training cannot fit in memory, before anything is computed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from avsnn.errors import RunError, UserError
from avsnn.models.patch_split import PATCH_SPLITS
from avsnn.models.zoo import build
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.train_settings import TrainSettings

# A weight, its gradient and two moments of AdamW, as float32.
BYTES_PER_PARAMETER = 16

ADVICE = "lower batch_size, model.steps, model.channels or data.size, or raise optimizer.accumulate"

# Words of the errors that torch raises if there is no memory.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


def require_memory(config: RunConfig, device: torch.device, *, processes: int) -> None:
    """Refuse a training that needs more memory than the device has.

    Args:
        config: the configuration of the run.
        device: the device that computes.
        processes: number of processes that share out every batch.

    Raises:
        UserError: the weights and what a step must keep are larger than all memory.
    """
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    else:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = _bytes_of_weights(config) + _bytes_of_step(config.settings, processes=processes)
    if needed > there:
        raise UserError(
            f"these settings need more than {needed / 1e9:,.0f} GB of memory, and {device.type} "
            f"has {there / 1e9:,.0f} GB: {ADVICE}."
        )


@contextmanager
def lack_of_memory_said() -> Iterator[None]:
    """Turn every error that says that memory ran out into one sentence.

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
        raise RunError(
            f"there is not enough memory ({reason}). Finished epochs are saved; {ADVICE}."
        ) from None


def _bytes_of_weights(config: RunConfig) -> int:
    settings = config.settings
    try:
        with torch.device("meta"):
            model = build(settings.model, classes=len(config.manifest.classes), tokens=1)
    except ValueError:
        # `build_network` builds the same network, and says why the settings make no network.
        return 0
    return BYTES_PER_PARAMETER * sum(parameter.numel() for parameter in model.parameters())


def _bytes_of_step(settings: TrainSettings, *, processes: int) -> int:
    """Return what the patch splits at least keep of a step for the backward pass.

    Every stage keeps the output of its convolution; the stages after the first have T time steps.
    """
    model, size = settings.model, settings.data.size
    clips = settings.batch_size // (processes * settings.optimizer.accumulate)
    stages: list[int] = [
        (model.steps if number else 1)
        * clips
        * (model.channels // divisor)
        * (size // 2**number) ** 2
        * (2 if settings.compute.precision == "bf16" else 4)
        for number, divisor in enumerate(PATCH_SPLITS[model.patch_split])
    ]
    if settings.compute.recompute:
        return max(stages)
    return sum(stages) * (1 if model.method in ("audio", "visual") else 2)
