"""Augments event frames on the device: random crops with zero padding, normalisation, resizing."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from avsnn.pipeline.runs.train_settings import AugmentSettings

# The published runs normalise the numbers of events with these values, which are the mean and the
# standard deviation of the pixels of MNIST.
MEAN = 0.1307
STD = 0.3081


def random_event_crops(
    draws: NDArray[np.float64], extent: torch.Size, settings: AugmentSettings
) -> Tensor:
    """Return a random crop of the event frames of each clip, the same at every time step.

    The crop has the size of the frame, and is taken from the frame with ``settings.padding`` zeros
    on every side. So a crop may start above or left of the frame.

    Args:
        draws: uniform random numbers in [0, 1), ``[B, 2]``.
        extent: height and width of the frames in px.
        settings: the padding.

    Returns:
        top, left, height and width of each crop in px of the frame without padding, and 0, because
        event frames are never mirrored, ``[B, 5]`` int32: the form of ``augment.random_crops``.
    """
    crops = whole_event_frames(len(draws), extent)
    places = np.floor(draws * (2 * settings.padding + 1)) - settings.padding
    crops[:, :2] = torch.from_numpy(places.astype(np.int32))
    return crops


def whole_event_frames(count: int, extent: torch.Size) -> Tensor:
    """Return crops for evaluation, which keep the whole frame, as ``random_event_crops`` does."""
    return torch.tensor([0, 0, *extent, 0], dtype=torch.int32).repeat(count, 1)


def crop_and_normalise_events(frames: Tensor, crops: Tensor, *, channels_last: bool) -> Tensor:
    """Crop the event frames of each clip, normalise, and put the time steps first.

    Nothing here waits for a GPU. The numbers of events stay bytes until the one pass that writes
    the result in its memory layout.

    Args:
        frames: event frames ``[B, T, P, H, W]`` uint8.
        crops: the crop of each clip, as ``random_event_crops`` returns crops, on the device of the
            frames.
        channels_last: whether the channels are innermost in memory, ``[T, B, H, W, P]``.

    Returns:
        ``(x - 0.1307) / 0.3081``, ``[T, B, P, H, W]`` float32.
    """
    count, steps, channels, height, width = frames.shape
    rows, inside_rows = _pixels(crops[:, 0], height)
    columns, inside_columns = _pixels(crops[:, 1], width)
    places = (rows[:, :, None] * width + columns[:, None]).view(count, 1, -1)
    inside = (inside_rows[:, :, None] & inside_columns[:, None]).view(count, 1, -1)
    pixels = frames.reshape(count, steps * channels, -1)
    cropped = pixels.gather(2, places.long().expand(pixels.shape)).mul_(inside)
    if channels_last:
        memory = frames.new_empty((steps, count, height, width, channels), dtype=torch.float32)
        out = memory.permute(0, 1, 4, 2, 3)
    else:
        out = frames.new_empty((steps, count, channels, height, width), dtype=torch.float32)
    out.copy_(cropped.view(frames.shape).transpose(0, 1))
    return out.sub_(MEAN).div_(STD)


def resize_events(audio: Tensor, *, size: int) -> Tensor:
    """Resize the event frames of a cochlea, bilinear, and put the time steps first.

    The published runs enlarge 8x8 to 28x28. A cochlea of more channels may have more rows or
    columns than the network reads; frames are shrunk with antialiasing, so that no channel is lost.

    Args:
        audio: event frames ``[B, T, 1, h, w]`` uint8.
        size: height and width of the result in px.

    Returns:
        numbers of events ``[T, B, 1, size, size]`` float32, not normalised, as published. A single
        channel is innermost in memory and outermost at once.
    """
    steps_first = audio.transpose(0, 1)
    counts = steps_first.to(torch.float32, memory_format=torch.contiguous_format)
    if counts.shape[-2:] == (size, size):
        return counts
    small = counts.flatten(0, 1)
    shrinks = max(small.shape[-2:]) > size
    large = interpolate(
        small, size=(size, size), mode="bilinear", antialias=shrinks, align_corners=False
    )
    return large.view(*counts.shape[:3], size, size)


def _pixels(start: Tensor, extent: int) -> tuple[Tensor, Tensor]:
    """Return the pixels of crops along one dimension, and which of these lie inside the frame.

    Args:
        start: first pixel of each crop, ``[B]``; may lie outside the frame.
        extent: number of pixels of the frame, and of a crop.

    Returns:
        numbers of pixels ``[B, extent]``, those outside the frame replaced by the nearest pixel,
        and whether each pixel lies inside the frame, ``[B, extent]``.
    """
    pixels = start[:, None] + torch.arange(extent, dtype=torch.int32, device=start.device)
    inside = (pixels >= 0) & (pixels < extent)
    return pixels.clamp(0, extent - 1), inside
