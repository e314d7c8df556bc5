"""Batch augmentation on the device: crops, flips and normalisation."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from avsnn.pipeline.runs.train_settings import AugmentSettings

# Of ImageNet, as in the published runs.
MEAN = (0.485, 0.456, 0.406)


STD = (0.229, 0.224, 0.225)


# As torchvision: so many tries to place a crop of a drawn area and ratio, then the centre.
ATTEMPTS = 10


DRAWS = 2 * ATTEMPTS + 3


def augment_frames(
    frames: Tensor, draws: NDArray[np.float64], *, settings: AugmentSettings, size: int
) -> Tensor:
    """Random resized crop, random flip, normalisation (recipe of arXiv 2502.12488).

    Args:
        frames: ``[B, 3, H, W]`` uint8.
        draws: uniform in [0, 1), ``[B, DRAWS]``.
        settings: ranges to draw from.
        size: px, height and width of the result.

    Returns:
        ``[B, 3, size, size]`` float32.
    """
    boxes = _random_boxes(draws, frames.shape[-2:], settings)
    flipped = draws[:, -1] < 0.5 if settings.flip else np.zeros(len(draws), bool)
    return _normalise(crop_resize(frames, boxes, size=size, flipped=flipped))


def centre_frames(frames: Tensor, *, settings: AugmentSettings, size: int) -> Tensor:
    """The centred square of evaluation, normalised: ``[B, 3, H, W]`` uint8 to float32."""
    height, width = frames.shape[-2:]
    side = max(1, round(settings.test_crop * min(height, width)))
    box = ((height - side) // 2, (width - side) // 2, side, side)
    boxes = np.tile(box, (len(frames), 1))
    return _normalise(crop_resize(frames, boxes, size=size, flipped=np.zeros(len(frames), bool)))


def add_noise(images: Tensor, noise: NDArray[np.float32], *, snr: float) -> Tensor:
    """Adds noise of power ``mean(x ** 2) / 10 ** (snr / 10)``, the mean over each image.

    Args:
        images: ``[B, C, H, W]``.
        noise: standard normal, of the same shape.
        snr: signal to noise ratio in dB.
    """
    power = images.square().mean(dim=(1, 2, 3), keepdim=True) / 10 ** (snr / 10)
    return images + torch.from_numpy(noise).to(images.device) * power.sqrt()


def resize_audio(images: Tensor, *, size: int) -> Tensor:
    """Audio images ``[B, 1, F, F]`` at the network's size, bilinear with antialiasing."""
    if images.shape[-2:] == (size, size):
        return images
    return interpolate(
        images, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )


def crop_resize(
    images: Tensor, boxes: NDArray[np.int64], *, size: int, flipped: NDArray[np.bool_]
) -> Tensor:
    """Crops each image at its own box and resizes it, bilinear with antialiasing.

    To whole grey levels, as published (PIL); on a GPU some are one level off those of a CPU.

    Args:
        images: ``[B, C, H, W]`` uint8.
        boxes: top, left, height, width in px, ``[B, 4]``.
        size: px, height and width of the result.
        flipped: which results are mirrored left to right, ``[B]``.

    Returns:
        ``[B, C, size, size]`` float32, 0 to 255.
    """
    resize = resize_one_by_one if images.device.type == "cpu" else resize_together
    return resize(images, boxes, size=size, flipped=flipped)


def resize_one_by_one(
    images: Tensor, boxes: NDArray[np.int64], *, size: int, flipped: NDArray[np.bool_]
) -> Tensor:
    """The way for a CPU, where torch resizes bytes 20 times as fast as it multiplies matrices."""
    out = torch.empty((len(images), images.shape[1], size, size), dtype=images.dtype)
    for place, (top, left, height, width) in enumerate(boxes.tolist()):
        crop = images[place : place + 1, :, top : top + height, left : left + width]
        small = interpolate(crop, size=(size, size), mode="bilinear", antialias=True)[0]
        out[place] = small.flip(-1) if flipped[place] else small
    return out.float()


def resize_together(
    images: Tensor, boxes: NDArray[np.int64], *, size: int, flipped: NDArray[np.bool_]
) -> Tensor:
    """The way for a GPU: a separable filter, so a matrix for the rows and one for the columns."""
    height, width = images.shape[-2:]
    rows = _filters(boxes[:, 0], boxes[:, 2], height, size).to(images.device)
    columns = _filters(boxes[:, 1], boxes[:, 3], width, size)
    columns[torch.from_numpy(flipped)] = columns[torch.from_numpy(flipped)].flip(1)
    columns = columns.to(images.device)
    return (rows[:, None] @ images.float() @ columns[:, None].transpose(-1, -2)).round()


def _filters(start: NDArray[np.int64], length: NDArray[np.int64], extent: int, size: int) -> Tensor:
    """Weights ``[B, size, extent]`` of a triangle filter, as wide as one output pixel or more."""
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
    height, width = extent
    area = settings.min_area + draws[:, :ATTEMPTS] * (1 - settings.min_area)
    log_ratio = (2 * draws[:, ATTEMPTS : 2 * ATTEMPTS] - 1) * math.log(settings.max_ratio)
    wide = np.round(np.sqrt(area * height * width * np.exp(log_ratio))).astype(np.int64)
    high = np.round(np.sqrt(area * height * width / np.exp(log_ratio))).astype(np.int64)
    fits = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)
    first = np.argmax(fits, axis=1)
    every = np.arange(len(draws))
    side = min(height, width)
    found = np.any(fits, axis=1, keepdims=True)
    high = np.where(found[:, 0], high[every, first], side)
    wide = np.where(found[:, 0], wide[every, first], side)
    centred = np.where(found, draws[:, 2 * ATTEMPTS : 2 * ATTEMPTS + 2], 0.5)
    top = (centred[:, 0] * (height - high + 1)).astype(np.int64)
    left = (centred[:, 1] * (width - wide + 1)).astype(np.int64)
    return np.stack([top, left, high, wide], axis=1)


def _normalise(images: Tensor) -> Tensor:
    """In place: ``(x / 255 - mean) / std`` as one product and one sum."""
    scale = torch.tensor([1 / (255 * std) for std in STD], device=images.device)
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)])
    return images.mul_(scale.view(3, 1, 1)).add_(shift.to(images.device).view(3, 1, 1))
