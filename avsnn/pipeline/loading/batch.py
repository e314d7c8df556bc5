"""A batch: samples, and the random numbers of their augmentation."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsnn.pipeline.loading.augment import DRAWS, centre_crops, random_crops
from avsnn.pipeline.loading.augment_events import random_event_crops, whole_event_frames
from avsnn.pipeline.loading.order import BatchRequest, sample_draws, sample_noise
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.train_settings import AugmentSettings, TrainSettings

# The noise of evaluation is the same in every evaluation. No training epoch has this number, so
# the noise differs from the noise of every training epoch.
EVALUATION_EPOCH = 2**63


class Batch(NamedTuple):
    """Samples as the caches hold them, with all numbers that a device needs to augment them.

    Attributes:
        rows: row of each sample, ``[B]``.
        frames: one frame of each clip, ``[B, 3, H, W]`` uint8 RGB; or the event frames of each
            clip, ``[B, T, 2, H, W]`` uint8 counts.
        audio: one audio image of each clip, ``[B, 1, F, F]`` float32 log magnitudes; or the event
            frames of a cochlea, ``[B, T, 1, h, w]`` uint8 counts.
        labels: class of each clip, ``[B]`` int64.
        crops: crop of each frame, ``[B, 5]`` int32, as ``random_crops`` returns crops; of event
            frames, one crop for all time steps, as ``random_event_crops`` returns crops.
        noise: standard normal noise for each cropped frame, ``[B, 3, S, S]`` float32, where S is
            ``data.size``, or ``[B, T, 2, H, W]`` for event frames; None if the settings ask for no
            noise.
    """

    rows: NDArray[np.int64]
    frames: Tensor
    audio: Tensor
    labels: Tensor
    crops: Tensor
    noise: Tensor | None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors of the batch, in the order of the attributes."""
        tensors = (self.frames, self.audio, self.labels, self.crops)
        return tensors if self.noise is None else (*tensors, self.noise)

    def pin_memory(self) -> Self:
        """Return the same batch in pinned memory, from which a GPU copies without the CPU.

        torch's ``DataLoader`` calls a method of this name.
        """
        return self._with(tensor.pin_memory() for tensor in self.tensors)

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device; a GPU copies from pinned memory while the CPU goes on."""
        return self._with(tensor.to(device, non_blocking=True) for tensor in self.tensors)

    def _with(self, tensors: Iterable[Tensor]) -> Self:
        """Return the batch with other tensors, in the order of ``tensors``."""
        names = ("frames", "audio", "labels", "crops", "noise")
        # Without noise there are only four tensors.
        changed: dict[str, Any] = dict(zip(names, tensors, strict=False))
        return self._replace(**changed)


def evaluation_crops(frames: Tensor, augment: AugmentSettings) -> Tensor:
    """Return the crop of each frame in evaluation, as `Batch.crops`.

    Args:
        frames: frames or event frames, as `Batch.frames`.
        augment: the settings of the crops.
    """
    if frames.dim() == 5:
        return whole_event_frames(len(frames), frames.shape[-2:])
    return centre_crops(len(frames), frames.shape[-2:], augment)


def read_batch(source: Source, request: BatchRequest, settings: TrainSettings) -> Batch:
    """Read the samples of a batch, and draw the random numbers of their augmentation.

    Args:
        source: the samples.
        request: the rows of the batch, and the epoch whose random numbers they get.
        settings: the settings of the training.
    """
    rows, epoch, augment = request.rows, request.epoch, settings.data.augment
    if epoch is None:
        # Evaluation takes the middle frame of each clip.
        samples = source.read(rows, np.full(len(rows), 0.5))
        extent, has_events = samples.frames.shape[-2:], samples.frames.dim() == 5
        crops = evaluation_crops(samples.frames, augment)
    else:
        draws = sample_draws(seed=settings.seed, epoch=epoch, rows=rows, count=DRAWS + 1)
        # The first draw chooses the frame of the clip.
        samples = source.read(rows, draws[:, 0])
        extent, has_events = samples.frames.shape[-2:], samples.frames.dim() == 5
        crops = (
            random_event_crops(draws[:, 1:3], extent, augment)
            if has_events
            else random_crops(draws[:, 1:], extent, augment)
        )
    noise = None
    if augment.noise_snr is not None and (epoch is not None or augment.noise_in_evaluation):
        size = samples.frames.shape[-2:] if has_events else (settings.data.size,) * 2
        shape = (*samples.frames.shape[1:-2], *size)
        of_epoch = EVALUATION_EPOCH if epoch is None else epoch
        drawn = sample_noise(seed=settings.seed, epoch=of_epoch, rows=rows, shape=shape)
        noise = torch.from_numpy(drawn)
    return Batch(rows, *samples, crops, noise)
