"""What a network sees and hears in each time step: positions in a video, and windows of a sound."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsnn.errors import UserError
from avsnn.pipeline.formats.prepare_settings import prepare_command
from avsnn.pipeline.loading.augment import resize_audio
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.train_settings import TrainSettings

# The largest number below 1: a position of 1 would be behind the last frame.
_BELOW_ONE = np.nextafter(1.0, 0.0)


def step_positions(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the position ``(t + u) / T`` in [0, 1) along a clip of the frame of each time step.

    Args:
        places: the place u in [0, 1) of each frame in its own T-th part of the clip, ``[B, T]``.

    Returns:
        positions ``[B, T]``, in rising order.
    """
    steps = places.shape[1]
    positions: NDArray[np.float64] = (np.arange(steps) + places) / steps
    return np.minimum(positions, _BELOW_ONE)


def evaluation_positions(count: int, settings: TrainSettings) -> NDArray[np.float64]:
    """Return the positions of the frames that evaluation takes of each clip.

    Args:
        count: number B of clips.
        settings: the settings of the training.

    Returns:
        the middle of each clip, ``[B]``; or the middles of its T equal parts, ``[B, T]``.
    """
    if settings.data.frames == "per-step":
        return step_positions(np.full((count, settings.model.steps), 0.5))
    return np.full(count, 0.5)


def audio_windows(columns: int, settings: TrainSettings) -> list[tuple[int, int]]:
    """Return the first column of the audio image in each time step, and the column behind the last.

    Args:
        columns: number F of columns of the audio image; a column is a moment of the sound.
        settings: the settings of the training, with ``data.audio`` per-step or growing.
    """
    steps, is_growing = settings.model.steps, settings.data.audio == "growing"
    return [
        (0 if is_growing else step * columns // steps, (step + 1) * columns // steps)
        for step in range(steps)
    ]


def audio_inputs(images: Tensor, settings: TrainSettings) -> Tensor:
    """Return what a network hears of audio images.

    Args:
        images: audio images ``[B, 1, F, F]``.
        settings: the settings of the training.

    Returns:
        the whole images, resized, ``[B, 1, S, S]``; or one window for each time step, each resized
        like a whole image, ``[T, B, 1, S, S]``. S is ``data.size``.
    """
    size = settings.data.size
    if settings.data.audio == "whole":
        return resize_audio(images, size=size)
    windows = audio_windows(images.shape[-1], settings)
    return torch.stack([resize_audio(images[..., first:end], size=size) for first, end in windows])


def require_steps(config: RunConfig, source: Source) -> list[str]:
    """Refuse clips that have nothing of their own to show or to play in each time step.

    Args:
        config: the configuration of the run.
        source: the samples.

    Returns:
        a sentence that a person should read, where some clips have fewer frames than there are time
        steps; otherwise nothing.

    Raises:
        UserError: no clip has more than one frame, or the audio images have fewer columns than
            there are time steps.
    """
    settings, steps = config.settings, config.settings.model.steps
    prepared = config.data.settings
    columns = source.shapes.audio[-1]
    if settings.data.audio != "whole" and columns < steps:
        audio = prepared.audio.model_copy(update={"size": steps})
        larger = prepared.model_copy(update={"audio": audio})
        raise UserError(
            f"data.audio is {settings.data.audio}, but the audio images of {config.dataset} have "
            f"only {columns} columns for {steps} time steps: lower model.steps, or prepare larger "
            f"images with '{prepare_command(config.dataset, larger, config.root)}'."
        )
    if settings.data.frames == "published" or settings.model.method == "audio":
        return []
    counts = source.frame_counts
    extract = prepared.extract.model_copy(update={"frames": max(2, steps)})
    wanted = prepared.model_copy(update={"extract": extract})
    more = f"'{prepare_command(config.dataset, wanted, config.root)}'"
    if counts.max() < 2:
        raise UserError(
            "data.frames is per-step, but a single frame is stored of every clip of "
            f"{config.dataset}: prepare more frames with {more}."
        )
    fewer = int((counts < steps).sum())
    if not fewer:
        return []
    return [
        f"{fewer:,} of {len(counts):,} clips have fewer stored frames than the {steps} time steps, "
        f"so these clips show a frame in several steps; {more} stores a frame for each step"
    ]
