"""Single images: decodes, encodes and resizes images in memory."""

import numpy as np

from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.frames import Frame
from avsnn.pipeline.media.opencv_settings import cv2


def decode_image(data: bytes) -> Frame:
    """Return the pixels of an image file, ``[H, W, 3]`` RGB.

    Raises:
        MediaError: the data are no image, or end early.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if pixels is None:
        raise MediaError("is not an image that can be decoded")
    return np.asarray(pixels, np.uint8)


def image_suffix(data: bytes) -> str:
    """Return ``jpg`` or ``png``, by the first bytes of an image file.

    Raises:
        MediaError: the file is neither a JPEG nor a PNG image.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    raise MediaError("is neither a JPEG nor a PNG image")


def encode_jpeg(frame: Frame, quality: int) -> bytes:
    """Return a frame ``[H, W, 3]`` RGB as the bytes of a JPEG file, of quality 0 to 100."""
    bgr = np.ascontiguousarray(frame[..., ::-1])
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def resize(frame: Frame, height: int, width: int) -> Frame:
    """Return a frame ``[H, W, 3]`` in another size.

    The interpolation is bilinear with antialiasing, as in the published code (PIL).
    """
    import torch

    if frame.shape[:2] == (height, width):
        return frame
    # PyTorch takes less than half of the time that area averaging takes in OpenCV.
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        pixels, size=(height, width), mode="bilinear", antialias=True
    )
    return np.asarray(resized[0].permute(1, 2, 0).numpy(), np.uint8)
