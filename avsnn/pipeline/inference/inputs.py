"""From a batch to the input of a network: augmentation, noise, size, memory layout."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsnn.pipeline.inference.device import wants_channels_last
from avsnn.pipeline.loading.augment import (
    DRAWS,
    add_noise,
    augment_frames,
    centre_frames,
    resize_audio,
)
from avsnn.pipeline.loading.order import sample_draws, sample_noise
from avsnn.pipeline.loading.source import Batch
from avsnn.pipeline.runs.train_settings import TrainSettings

# The noise of evaluation is the same in every evaluation. No training epoch has this number, so
# the noise differs from the noise of every training epoch.
EVALUATION_EPOCH = 2**63


def training_inputs(
    batch: Batch, settings: TrainSettings, *, epoch: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the input of a training step.

    Args:
        batch: the samples.
        settings: the settings of the training.
        epoch: number of the epoch; crops, flips and noise are drawn from seed, epoch and sample.
        device: the device of the result.

    Returns:
        audio images ``[B, 1, S, S]`` and frames ``[B, 3, S, S]``, float32, where S is
        ``data.size``.
    """
    draws = sample_draws(seed=settings.seed, epoch=epoch, rows=batch.rows, count=DRAWS + 1)
    frames = augment_frames(
        batch.frames.to(device, non_blocking=True),
        # The first draw chose the frame of the clip.
        draws[:, 1:],
        settings=settings.data.augment,
        size=settings.data.size,
    )
    frames = _with_noise(frames, batch.rows, settings, epoch=epoch)
    audio = resize_audio(batch.audio.to(device, non_blocking=True), size=settings.data.size)
    return _formatted(audio, frames, settings)


def evaluation_inputs(
    batch: Batch, settings: TrainSettings, *, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the input of an evaluation step: the centre of each frame, no augmentation.

    Returns:
        audio images ``[B, 1, S, S]`` and frames ``[B, 3, S, S]``, float32, where S is
        ``data.size``.
    """
    augment, size = settings.data.augment, settings.data.size
    frames = centre_frames(batch.frames.to(device), settings=augment, size=size)
    if augment.noise_in_evaluation:
        frames = _with_noise(frames, batch.rows, settings, epoch=EVALUATION_EPOCH)
    return _formatted(resize_audio(batch.audio.to(device), size=size), frames, settings)


def _formatted(audio: Tensor, frames: Tensor, settings: TrainSettings) -> tuple[Tensor, Tensor]:
    """Return both inputs as the first convolutions read memory."""
    if not wants_channels_last(settings, frames.device):
        return audio, frames
    form = torch.channels_last
    return audio.contiguous(memory_format=form), frames.contiguous(memory_format=form)


def _with_noise(
    frames: Tensor, rows: NDArray[np.int64], settings: TrainSettings, *, epoch: int
) -> Tensor:
    """Return frames ``[B, 3, H, W]`` with the noise of ``data.augment.noise_snr``, if it is set."""
    snr = settings.data.augment.noise_snr
    if snr is None:
        return frames
    shape = tuple(frames.shape[1:])
    noise = sample_noise(seed=settings.seed, epoch=epoch, rows=rows, shape=shape)
    return add_noise(frames, noise, snr=snr)
