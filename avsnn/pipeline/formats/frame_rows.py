"""A row of the frame cache, computed from an image file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from avsnn.pipeline.formats.prepare_settings import FrameSettings
    from avsnn.pipeline.formats.shards import Sample


def frame_shape(samples: list[Sample], settings: FrameSettings) -> tuple[int, ...]:
    """Return the shape ``(3, H, W)`` of every row of the frame cache.

    If all clips have frames of one size, the shape is that size, shrunk to ``shorter_side``.
    Otherwise the shape is a square whose side is the shortest side of all frames, but at most
    ``shorter_side``. The caller has left out the clips that `outliers.find_outliers` names, so the
    side is not much smaller than most frames.
    """
    sizes = {(sample.height, sample.width) for sample in samples}
    if len(sizes) == 1:
        return (3, *_shrunk_size(*sizes.pop(), settings))
    side = min(settings.shorter_side, *(min(size) for size in sizes))
    return (3, side, side)


def frame_row(image: bytes, shape: tuple[int, ...], settings: FrameSettings) -> NDArray[np.uint8]:
    """Return the pixels of an image file as ``[3, H, W]`` RGB.

    Args:
        image: the bytes of a JPEG or PNG file.
        shape: the shape of the result, from :func:`frame_shape`. If the shape has other proportions
            than the image, the row is the centre square of the image.
        settings: the settings of the frame cache.
    """
    # A command that finds nothing to do need not wait for the import of the decoders.
    from avsnn.pipeline.media.image import decode_image, resize

    pixels = decode_image(image)
    _, height, width = shape
    full_height, full_width, _ = pixels.shape
    if _shrunk_size(full_height, full_width, settings) != (height, width):
        side = min(full_height, full_width)
        top, left = (full_height - side) // 2, (full_width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    return resize(pixels, height, width).transpose(2, 0, 1)


def _shrunk_size(height: int, width: int, settings: FrameSettings) -> tuple[int, int]:
    scale = min(1.0, settings.shorter_side / min(height, width))
    return round(height * scale), round(width * scale)
