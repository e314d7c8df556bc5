"""Augments a batch on the device: crops, flips, normalisation and noise."""

import math
from functools import cache

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


def random_crops(
    draws: NDArray[np.float64], extent: torch.Size, settings: AugmentSettings
) -> Tensor:
    """Return a random crop of each frame, and whether the crop is mirrored (arXiv 2502.12488).

    Args:
        draws: uniform random numbers in [0, 1), ``[B, DRAWS]``.
        extent: height and width of the frames in px.
        settings: the ranges of area and ratio, and whether to mirror.

    Returns:
        top, left, height and width of each crop in px, and 1 if the crop is mirrored left to right,
        ``[B, 5]`` int32.
    """
    boxes = _random_boxes(draws, extent, settings)
    mirrored = (draws[:, -1:] < 0.5) & settings.flip
    return torch.from_numpy(np.concatenate([boxes, mirrored], axis=1).astype(np.int32))


def centre_crops(count: int, extent: torch.Size, settings: AugmentSettings) -> Tensor:
    """Return the centred square of each frame for evaluation, in the form of ``random_crops``.

    Args:
        count: number of frames.
        extent: height and width of the frames in px.
        settings: the side of the square.
    """
    height, width = extent
    side = max(1, round(settings.test_crop * min(height, width)))
    crop = [(height - side) // 2, (width - side) // 2, side, side, 0]
    return torch.tensor(crop, dtype=torch.int32).repeat(count, 1)


def crop_and_normalise(frames: Tensor, crops: Tensor, *, size: int) -> Tensor:
    """Crop each frame, resize the crop, and normalise.

    Args:
        frames: frames ``[B, 3, H, W]`` uint8.
        crops: the crop of each frame, as ``random_crops`` returns crops, on the device of the
            frames.
        size: height and width of the result in px.

    Returns:
        normalised frames ``[B, 3, size, size]`` float32.
    """
    scale, shift = _normalisation(frames.device)
    return crop_resize(frames, crops, size=size).mul_(scale).add_(shift)


def crop_and_normalise_steps(frames: Tensor, crops: Tensor, *, size: int) -> Tensor:
    """Do the work of ``crop_and_normalise`` for T frames of each clip; the steps come first.

    Args:
        frames: frames ``[B, T, 3, H, W]`` uint8.
        crops: the crop of each clip, the same in all time steps, ``[B, 5]``.
        size: height and width of the result in px.

    Returns:
        normalised frames ``[T, B, 3, size, size]`` float32.
    """
    count, steps = frames.shape[:2]
    one_by_one = frames.transpose(0, 1).flatten(0, 1)
    cropped = crop_and_normalise(one_by_one, crops.repeat(steps, 1), size=size)
    return cropped.view(steps, count, *cropped.shape[1:])


def add_noise(images: Tensor, noise: Tensor, *, snr: float) -> Tensor:
    """Return the images with noise of power ``mean(x ** 2) / 10 ** (snr / 10)``.

    The mean is taken over each image; where each time step has an image, over all steps of a clip.

    Args:
        images: images ``[B, C, H, W]``, or one for each time step, ``[T, B, C, H, W]``.
        noise: standard normal noise, of the shape of the images and on their device.
        snr: signal to noise ratio in dB.
    """
    others = [axis for axis in range(images.dim()) if axis != images.dim() - 4]
    power = images.square().mean(dim=others, keepdim=True) / 10 ** (snr / 10)
    return images + noise * power.sqrt()


def resize_audio(images: Tensor, *, size: int) -> Tensor:
    """Resize audio images ``[B, 1, F, F]`` to ``[B, 1, size, size]``, bilinear, antialiased."""
    if images.shape[-2:] == (size, size):
        return images
    return interpolate(
        images, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )


def crop_resize(images: Tensor, crops: Tensor, *, size: int) -> Tensor:
    """Crop each image at a box of its own, and resize the crop, bilinear with antialiasing.

    The result has whole grey levels, as published (PIL). Less than one in a hundred grey levels of
    a GPU differs by one from the grey level of a CPU, whose weights are whole numbers.

    Args:
        images: images ``[B, C, H, W]`` uint8.
        crops: the crop of each image, as ``random_crops`` returns crops, on the device of the
            images.
        size: height and width of the result in px.

    Returns:
        images ``[B, C, size, size]`` float32, 0 to 255.
    """
    resize = resize_one_by_one if images.device.type == "cpu" else resize_together
    return resize(images, crops, size=size)


def resize_one_by_one(images: Tensor, crops: Tensor, *, size: int) -> Tensor:
    """Do the work of ``crop_resize`` on a CPU.

    On a CPU, torch resizes bytes 20 times as fast as torch multiplies matrices.
    """
    out = torch.empty((len(images), images.shape[1], size, size), dtype=images.dtype)
    for i, (top, left, height, width, mirrored) in enumerate(crops.tolist()):
        crop = images[i : i + 1, :, top : top + height, left : left + width]
        resized = interpolate(crop, size=(size, size), mode="bilinear", antialias=True)[0]
        out[i] = resized.flip(-1) if mirrored else resized
    return out.float()


def resize_together(images: Tensor, crops: Tensor, *, size: int) -> Tensor:
    """Do the work of ``crop_resize`` on a GPU, without waiting for the GPU.

    The filter is separable, so a product with one matrix for the columns and a product with one
    matrix for the rows resize the whole batch at once. Like PIL and like torch on a CPU, each of
    the two rounds to whole grey levels, and one half upwards.
    """
    count, channels, height, width = images.shape
    top, left, crop_height, crop_width, mirrored = crops.unsqueeze(-1).unbind(1)
    outputs = torch.arange(size, dtype=torch.int32, device=images.device).expand(count, size)
    # The filters of a mirrored crop are the same filters in reverse order.
    column_outputs = torch.where(mirrored > 0, size - 1 - outputs, outputs)
    columns = _filters(left, crop_width, column_outputs, extent=width)
    rows = _filters(top, crop_height, outputs, extent=height)
    # Each product sees the channels as a part of the dimension that it leaves alone, so neither the
    # images nor the filters are copied for each channel.
    pixels = images.reshape(count, channels * height, width).float()
    narrow = _filter(columns, pixels).reshape(count, size * channels, height)
    small = _filter(rows, narrow).view(count, size, size, channels)
    return small.permute(0, 3, 1, 2).contiguous()


def _filter(weights: Tensor, pixels: Tensor) -> Tensor:
    """Return the filtered pixels as whole grey levels, ``[B, size, N]``.

    Args:
        weights: weights of the filters, 0 to 1, ``[B, size, extent]``.
        pixels: whole grey levels, ``[B, N, extent]``.
    """
    # A GPU may round the operands of a product to TF32, which has 11 bits. Grey levels have 8 bits
    # and the coarse weights 10 bits after the point, so only the fine weights are rounded.
    coarse = (weights * 1024).floor() / 1024
    fine = weights - coarse
    return (coarse @ pixels.mT).add_(fine @ pixels.mT).add_(0.5).floor_()


def _filters(start: Tensor, length: Tensor, outputs: Tensor, *, extent: int) -> Tensor:
    """Return the weights ``[B, size, extent]`` of a triangle filter along one dimension, float32.

    Half the width of the triangle is the larger of one output pixel and one input pixel. All
    numbers up to the division are whole numbers, so only the division is rounded.

    Args:
        start: first pixel of each crop, ``[B, 1]`` int32.
        length: number of pixels of each crop, ``[B, 1]`` int32.
        outputs: number of the output pixel that each filter computes, from 0, ``[B, size]`` int32.
        extent: number of pixels of the images.
    """
    size = outputs.shape[1]
    pixel = torch.arange(extent, dtype=torch.int32, device=start.device)
    # Positions in units of 1 / (2 * size) of a pixel of the image.
    centre = 2 * size * start + (2 * outputs + 1) * length
    distance = ((2 * pixel + 1) * size - centre[..., None]).abs()
    inside = (pixel >= start) & (pixel < start + length)
    half_width = 2 * length.clamp(min=size)
    weights = (half_width[..., None] - distance).clamp(min=0) * inside[:, None]
    return weights / weights.sum(-1, keepdim=True)


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


@cache
def _normalisation(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return scale and shift of ``(x / 255 - mean) / std`` as one product and one sum.

    Each device gets its tensors once, because a GPU would wait for the copy in every step.
    """
    scale = torch.tensor([1 / (255 * std) for std in STD])
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)])
    return scale.to(device).view(3, 1, 1), shift.to(device).view(3, 1, 1)
