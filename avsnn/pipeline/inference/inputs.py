"""From a batch to the input of a network: augmentation, noise, size, memory layout."""

import torch
from torch import Tensor

from avsnn.pipeline.loading.augment import add_noise, crop_and_normalise, resize_audio
from avsnn.pipeline.loading.batch import Batch
from avsnn.pipeline.runs.train_settings import TrainSettings


def training_inputs(batch: Batch, settings: TrainSettings) -> tuple[Tensor, Tensor]:
    """Return the input of a training step, in the memory layout that the settings ask for.

    Args:
        batch: the samples, on the device of the result.
        settings: the settings of the training.

    Returns:
        audio images ``[B, 1, S, S]`` and frames ``[B, 3, S, S]``, float32, where S is
        ``data.size``.
    """
    audio, frames = evaluation_inputs(batch, settings)
    if settings.compute.channels_last:
        frames = frames.contiguous(memory_format=torch.channels_last)
        audio = audio.contiguous(memory_format=torch.channels_last)
    return audio, frames


def evaluation_inputs(batch: Batch, settings: TrainSettings) -> tuple[Tensor, Tensor]:
    """Return the input of an evaluation step.

    Args:
        batch: the samples, on the device of the result.
        settings: the settings of the training.

    Returns:
        audio images ``[B, 1, S, S]`` and frames ``[B, 3, S, S]``, float32, where S is
        ``data.size``.
    """
    frames = crop_and_normalise(batch.frames, batch.crops, size=settings.data.size)
    snr = settings.data.augment.noise_snr
    if batch.noise is not None and snr is not None:
        frames = add_noise(frames, batch.noise, snr=snr)
    return resize_audio(batch.audio, size=settings.data.size), frames
