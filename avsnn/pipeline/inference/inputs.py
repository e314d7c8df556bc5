"""From a batch to the input of a network: augmentation, noise, size, memory layout."""

import torch
from torch import Tensor

from avsnn.pipeline.inference.device import wants_channels_last
from avsnn.pipeline.loading.augment import add_noise, crop_and_normalise, resize_audio
from avsnn.pipeline.loading.batch import Batch
from avsnn.pipeline.runs.train_settings import TrainSettings


def network_inputs(batch: Batch, settings: TrainSettings) -> tuple[Tensor, Tensor]:
    """Return the input of a step, in the memory layout that the first convolutions read.

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
    audio = resize_audio(batch.audio, size=settings.data.size)
    if wants_channels_last(settings, frames.device):
        frames = frames.contiguous(memory_format=torch.channels_last)
        audio = audio.contiguous(memory_format=torch.channels_last)
    return audio, frames
