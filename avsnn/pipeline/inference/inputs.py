"""From a batch to the input of a network: augmentation, noise, size, memory layout."""

import torch
from torch import Tensor

from avsnn.pipeline.inference.device import wants_channels_last
from avsnn.pipeline.loading.augment import (
    add_noise,
    crop_and_normalise,
    crop_and_normalise_steps,
)
from avsnn.pipeline.loading.augment_events import crop_and_normalise_events, resize_events
from avsnn.pipeline.loading.batch import Batch
from avsnn.pipeline.loading.per_step import audio_inputs
from avsnn.pipeline.runs.train_settings import TrainSettings


def network_inputs(batch: Batch, settings: TrainSettings) -> tuple[Tensor, Tensor]:
    """Return the input of a step, in the memory layout that the first convolutions read.

    Args:
        batch: the samples, on the device of the result.
        settings: the settings of the training.

    Returns:
        audio images ``[B, 1, S, S]`` and frames ``[B, 3, S, S]``, float32, where S is
        ``data.size``; where each time step has its own, ``[T, B, 1, S, S]`` and
        ``[T, B, 3, S, S]``; of event data, ``[T, B, 1, S, S]`` and ``[T, B, 2, S, S]``.
    """
    size, channels_last = settings.data.size, wants_channels_last(settings, batch.frames.device)
    if batch.frames.dim() == 4:
        frames = crop_and_normalise(batch.frames, batch.crops, size=size)
    elif settings.data.frames == "per-step":
        frames = crop_and_normalise_steps(batch.frames, batch.crops, size=size)
    else:
        frames = crop_and_normalise_events(batch.frames, batch.crops, channels_last=channels_last)
    snr = settings.data.augment.noise_snr
    if batch.noise is not None and snr is not None:
        noise = batch.noise.transpose(0, 1) if frames.dim() == 5 else batch.noise
        frames = add_noise(frames, noise, snr=snr)
    if batch.audio.dim() == 5:
        audio = resize_events(batch.audio, size=size)
    else:
        audio = audio_inputs(batch.audio, settings)
    if channels_last:
        audio, frames = _channels_last(audio), _channels_last(frames)
    return audio, frames


def _channels_last(images: Tensor) -> Tensor:
    """Return images, of one or of all time steps, with the channels innermost in memory."""
    flat = images if images.dim() == 4 else images.flatten(0, 1)
    return flat.contiguous(memory_format=torch.channels_last).view(images.shape)
