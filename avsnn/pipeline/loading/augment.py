"""Augments a batch on the device: crops, flips, normalisation and noise."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from avsnn.pipeline.runs.train_settings import AugmentSettings

# Mean and standard deviation of ImageNet; the published runs normalise with these values.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Like torchvision: a crop of random area and ratio that does not fit into the frame is drawn again,
# at most this number of times; after that the crop is the centred square.
ATTEMPTS = 10

# Random numbers for each frame: an area and a ratio for each attempt, the top and the left edge of
# the crop, and the flip.
DRAWS = 2 * ATTEMPTS + 3


def augment_frames(
    frames: Tensor, draws: NDArray[np.float64], *, settings: AugmentSettings, size: int
) -> Tensor:
    """Crop each frame at random, resize and flip the crop, and normalise (arXiv 2502.12488).

    Args:
        frames: frames ``[B, 3, H, W]`` uint8.
        draws: uniform random numbers in [0, 1), ``[B, DRAWS]``.
        settings: the ranges of area and ratio, and whether to flip.
        size: height and width of the result in px.

    Returns:
        normalised frames ``[B, 3, size, size]`` float32.
    """
    boxes = _random_boxes(draws, frames.shape[-2:], settings)
    flipped = draws[:, -1] < 0.5 if settings.flip else np.zeros(len(draws), bool)
    return _normalise(crop_resize(frames, boxes, size=size, flipped=flipped))


def centre_frames(frames: Tensor, *, settings: AugmentSettings, size: int) -> Tensor:
    """Crop the centred square of each frame for evaluation, resize the square, and normalise.

    Args:
        frames: frames ``[B, 3, H, W]`` uint8.
        settings: the side of the square.
        size: height and width of the result in px.

    Returns:
        normalised frames ``[B, 3, size, size]`` float32.
    """
    height, width = frames.shape[-2:]
    side = max(1, round(settings.test_crop * min(height, width)))
    box = ((height - side) // 2, (width - side) // 2, side, side)
    boxes = np.tile(box, (len(frames), 1))
    return _normalise(crop_resize(frames, boxes, size=size, flipped=np.zeros(len(frames), bool)))


def add_noise(images: Tensor, noise: NDArray[np.float32], *, snr: float) -> Tensor:
    """Return the images with noise of power ``mean(x ** 2) / 10 ** (snr / 10)``.

    The mean is taken over each image.

    Args:
        images: images ``[B, C, H, W]``.
        noise: standard normal noise, of the shape of the images.
        snr: signal to noise ratio in dB.
    """
    power = images.square().mean(dim=(1, 2, 3), keepdim=True) / 10 ** (snr / 10)
    return images + torch.from_numpy(noise).to(images.device) * power.sqrt()


def resize_audio(images: Tensor, *, size: int) -> Tensor:
    """Resize audio images ``[B, 1, F, F]`` to ``[B, 1, size, size]``, bilinear, antialiased."""
    if images.shape[-2:] == (size, size):
        return images
    return interpolate(
        images, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )


def crop_resize(
    images: Tensor, boxes: NDArray[np.int64], *, size: int, flipped: NDArray[np.bool_]
) -> Tensor:
    """Crop each image at a box of its own, and resize the crop, bilinear with antialiasing.

    The result has whole grey levels, as published (PIL). Some grey levels of a GPU differ by one
    from the grey levels of a CPU.

    Args:
        images: images ``[B, C, H, W]`` uint8.
        boxes: top, left, height and width of each crop in px, ``[B, 4]``.
        size: height and width of the result in px.
        flipped: which results are mirrored left to right, ``[B]``.

    Returns:
        images ``[B, C, size, size]`` float32, 0 to 255.
    """
    resize = resize_one_by_one if images.device.type == "cpu" else resize_together
    return resize(images, boxes, size=size, flipped=flipped)


def resize_one_by_one(
    images: Tensor, boxes: NDArray[np.int64], *, size: int, flipped: NDArray[np.bool_]
) -> Tensor:
    """Do the work of ``crop_resize`` on a CPU.

    On a CPU, torch resizes bytes 20 times as fast as torch multiplies matrices.
    """
    out = torch.empty((len(images), images.shape[1], size, size), dtype=images.dtype)
    for i, (top, left, height, width) in enumerate(boxes.tolist()):
        crop = images[i : i + 1, :, top : top + height, left : left + width]
        resized = interpolate(crop, size=(size, size), mode="bilinear", antialias=True)[0]
        out[i] = resized.flip(-1) if flipped[i] else resized
    return out.float()


def resize_together(
    images: Tensor, boxes: NDArray[np.int64], *, size: int, flipped: NDArray[np.bool_]
) -> Tensor:
    """Do the work of ``crop_resize`` on a GPU.

    The filter is separable, so a product with one matrix for the rows and one matrix for the
    columns resizes the whole batch at once.
    """
    height, width = images.shape[-2:]
    rows = _filters(boxes[:, 0], boxes[:, 2], height, size).to(images.device)
    columns = _filters(boxes[:, 1], boxes[:, 3], width, size)
    columns[torch.from_numpy(flipped)] = columns[torch.from_numpy(flipped)].flip(1)
    columns = columns.to(images.device)
    return (rows[:, None] @ images.float() @ columns[:, None].transpose(-1, -2)).round()


def _filters(start: NDArray[np.int64], length: NDArray[np.int64], extent: int, size: int) -> Tensor:
    """Return the weights ``[B, size, extent]`` of a triangle filter along one dimension.

    Half the width of the triangle is the larger of one output pixel and one input pixel.

    Args:
        start: first pixel of each crop, ``[B]``.
        length: number of pixels of each crop, ``[B]``.
        extent: number of pixels of the images.
        size: number of pixels of the result.
    """
    scale = length / size
    centre = start[:, None] + (np.arange(size) + 0.5) * scale[:, None]
    pixel = np.arange(extent)
    distance = np.abs(pixel + 0.5 - centre[..., None]) / np.maximum(scale, 1)[:, None, None]
    inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    weights = np.maximum(0, 1 - distance) * inside[:, None]
    return torch.from_numpy(weights / weights.sum(-1, keepdims=True)).float()


def _random_boxes(
    draws: NDArray[np.float64], extent: torch.Size, settings: AugmentSettings
) -> NDArray[np.int64]:
    """Return a random crop of each frame, ``[B, 4]``: top, left, height and width in px."""
    height, width = extent
    area = settings.min_area + draws[:, :ATTEMPTS] * (1 - settings.min_area)
    log_ratio = (2 * draws[:, ATTEMPTS : 2 * ATTEMPTS] - 1) * math.log(settings.max_ratio)
    widths = np.round(np.sqrt(area * height * width * np.exp(log_ratio))).astype(np.int64)
    heights = np.round(np.sqrt(area * height * width / np.exp(log_ratio))).astype(np.int64)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first_fit = np.argmax(fits, axis=1)
    every_frame = np.arange(len(draws))
    side = min(height, width)
    any_fits = np.any(fits, axis=1, keepdims=True)
    crop_height = np.where(any_fits[:, 0], heights[every_frame, first_fit], side)
    crop_width = np.where(any_fits[:, 0], widths[every_frame, first_fit], side)
    # Place of the crop between the edges of the frame, from 0 to 1; 0.5 is the centre.
    place = np.where(any_fits, draws[:, 2 * ATTEMPTS : 2 * ATTEMPTS + 2], 0.5)
    top = (place[:, 0] * (height - crop_height + 1)).astype(np.int64)
    left = (place[:, 1] * (width - crop_width + 1)).astype(np.int64)
    return np.stack([top, left, crop_height, crop_width], axis=1)


def _normalise(images: Tensor) -> Tensor:
    """Compute ``(x / 255 - mean) / std`` in place, as one product and one sum."""
    scale = torch.tensor([1 / (255 * std) for std in STD], device=images.device)
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)])
    return images.mul_(scale.view(3, 1, 1)).add_(shift.to(images.device).view(3, 1, 1))
