"""A row of the frame cache, computed from an image file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from avsnn.pipeline.formats.prepare_settings import FrameSettings


def frame_shape(clips: NDArray[Any], settings: FrameSettings) -> tuple[int, ...]:
    """Return the shape ``(3, H, W)`` of every row of the frame cache.

    If all clips have frames of one size, the shape is that size, shrunk to ``shorter_side``.
    Otherwise the shape is a square whose side is the shortest side of all frames, but at most
    ``shorter_side``. The caller has left out the clips that `outliers.find_outliers` names, so the
    side is not much smaller than most frames.

    Args:
        clips: `ShardColumns.clips`, whose ``height`` and ``width`` are read; at least one clip.
        settings: the settings of the frame cache.
    """
    heights, widths = clips["height"], clips["width"]
    height, width = int(heights[0]), int(widths[0])
    if (heights == height).all() and (widths == width).all():
        return (3, *_shrunk_size(height, width, settings))
    side = min(settings.shorter_side, int(heights.min()), int(widths.min()))
    return (3, side, side)


def frame_row(image: bytes, shape: tuple[int, ...], settings: FrameSettings) -> NDArray[np.uint8]:
    """Return the pixels of an image file as ``[3, H, W]`` RGB.

    Args:
        image: the bytes of a JPEG or PNG file.
        shape: the shape of the result, from :func:`frame_shape`. If the shape has other proportions
            than the image, the row is the centre of the image in the proportions of the shape: in a
            prepared data set, the centre square.
        settings: the settings of the frame cache.
    """
    # A command that finds nothing to do need not wait for the import of the decoders.
    from avsnn.pipeline.media.image import decode_image, resize

    pixels = decode_image(image)
    _, height, width = shape
    full_height, full_width, _ = pixels.shape
    if _shrunk_size(full_height, full_width, settings) != (height, width):
        cut_height, cut_width = _largest_cut(full_height, full_width, height, width)
        top, left = (full_height - cut_height) // 2, (full_width - cut_width) // 2
        pixels = pixels[top : top + cut_height, left : left + cut_width]
    return resize(pixels, height, width).transpose(2, 0, 1)


def _largest_cut(full_height: int, full_width: int, height: int, width: int) -> tuple[int, int]:
    """Return the size of the largest part of an image that has the proportions of a row."""
    if full_height * width <= full_width * height:
        return full_height, max(1, round(full_height * width / height))
    return max(1, round(full_width * height / width)), full_width


def _shrunk_size(height: int, width: int, settings: FrameSettings) -> tuple[int, int]:
    scale = min(1.0, settings.shorter_side / min(height, width))
    return round(height * scale), round(width * scale)
