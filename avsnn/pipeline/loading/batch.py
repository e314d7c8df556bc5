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
from avsnn.pipeline.loading.per_step import evaluation_positions, step_positions
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.sample_shapes import is_events
from avsnn.pipeline.runs.train_settings import AugmentSettings, TrainSettings

# The noise of evaluation is the same in every evaluation. No training epoch has this number, so
# the noise differs from the noise of every training epoch.
EVALUATION_EPOCH = 2**63


class Batch(NamedTuple):
    """Samples as the caches hold them, with all numbers that a device needs to augment them.

    Attributes:
        rows: row of each sample, ``[B]``.
        frames: one frame of each clip, ``[B, 3, H, W]`` uint8 RGB; or the frame of each time step,
            ``[B, T, 3, H, W]``; or the event frames of each clip, ``[B, T, 2, H, W]`` uint8 counts.
        audio: one audio image of each clip, ``[B, 1, F, F]`` float32 log magnitudes; or the event
            frames of a cochlea, ``[B, T, 1, h, w]`` uint8 counts.
        labels: class of each clip, ``[B]`` int64.
        crops: crop of each clip, the same in all time steps, ``[B, 5]`` int32, as ``random_crops``
            returns crops; of event frames, as ``random_event_crops`` returns crops.
        noise: standard normal noise for each cropped frame, ``[B, 3, S, S]`` float32, where S is
            ``data.size``, or ``[B, T, 3, S, S]``, or ``[B, T, 2, H, W]`` for event frames; None if
            the settings ask for no noise.
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


def evaluation_crops(count: int, frame_shape: tuple[int, ...], augment: AugmentSettings) -> Tensor:
    """Return the crop of each clip in evaluation, as `Batch.crops`.

    Args:
        count: number of clips.
        frame_shape: shape of the frames of a sample, as `SampleShapes.frames`.
        augment: the settings of the crops.
    """
    extent = torch.Size(frame_shape[-2:])
    if is_events(frame_shape):
        return whole_event_frames(count, extent)
    return centre_crops(count, extent, augment)


def read_batch(source: Source, request: BatchRequest, settings: TrainSettings) -> Batch:
    """Read the samples of a batch, and draw the random numbers of their augmentation.

    Args:
        source: the samples.
        request: the rows of the batch, and the epoch whose random numbers they get.
        settings: the settings of the training.
    """
    rows, epoch, augment = request.rows, request.epoch, settings.data.augment
    shape = source.shapes.frames
    extent, has_events = torch.Size(shape[-2:]), is_events(shape)
    if epoch is None:
        positions = evaluation_positions(len(rows), settings)
        crops = evaluation_crops(len(rows), shape, augment)
    else:
        is_per_step = settings.data.frames == "per-step"
        count = DRAWS + 1 + (settings.model.steps if is_per_step else 0)
        draws = sample_draws(seed=settings.seed, epoch=epoch, rows=rows, count=count)
        # The first draw chooses the one frame of the clip. The draws behind the crop choose the
        # frames of the time steps, so that the crop is the same as with one frame.
        positions = step_positions(draws[:, DRAWS + 1 :]) if is_per_step else draws[:, 0]
        crops = (
            random_event_crops(draws[:, 1:3], extent, augment)
            if has_events
            else random_crops(draws[:, 1 : DRAWS + 1], extent, augment)
        )
    samples = source.read(rows, positions)
    noise = None
    if augment.noise_snr is not None and (epoch is not None or augment.noise_in_evaluation):
        size = samples.frames.shape[-2:] if has_events else (settings.data.size,) * 2
        noise_shape = (*samples.frames.shape[1:-2], *size)
        of_epoch = EVALUATION_EPOCH if epoch is None else epoch
        drawn = sample_noise(seed=settings.seed, epoch=of_epoch, rows=rows, shape=noise_shape)
        noise = torch.from_numpy(drawn)
    return Batch(rows, *samples, crops, noise)
