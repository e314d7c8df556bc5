"""Single images: decodes, encodes and resizes images in memory."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from avsnn.pipeline.media.errors import MediaError, require_plausible_size
from avsnn.pipeline.media.frames import Frame
from avsnn.pipeline.media.opencv_settings import cv2

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

# The markers of a JPEG file that stand in front of the pixels, and at the end of the file.
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"

# How libjpeg starts the messages that tell of damaged pixels. Other messages are harmless.
DAMAGE_WORDS = (
    *("Corrupt JPEG data", "Premature end of JPEG file", "Invalid", "Inconsistent progression"),
)

# The markers of JPEG segments that hold height and width (C4, C8 and CC mean something else).
START_OF_FRAME = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)


def decode_image(data: bytes) -> Frame:
    """Return the pixels of an image file, ``[H, W, 3]`` RGB.

    Raises:
        MediaError: the data are no image, end early, or declare more than 100 megapixels.
    """
    require_plausible_size(*declared_size(data))
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise MediaError("is not an image that can be decoded")
    return np.asarray(pixels, np.uint8)


def decode_whole_image(data: bytes) -> Frame:
    """Return the pixels of a JPEG or PNG file, as `decode_image` does, and refuse a damaged file.

    libjpeg gives grey or wrong pixels for damaged bytes without an error, and tells of the damage
    on stderr alone. So the function must run in a process where no other thread writes to stderr:
    in the sandbox.

    Raises:
        MediaError: the data are neither JPEG nor PNG, are cut or damaged, or declare more than 100
            megapixels.
    """
    # OpenCV reads other kinds of images too, whatever size an image declares.
    image_suffix(data)
    with _stderr_lines() as lines:
        pixels = decode_image(data)
    if data.startswith(JPEG_SIGNATURE):
        if damage := next((line for line in lines if line.startswith(DAMAGE_WORDS)), None):
            raise MediaError(f"is corrupt: {damage}")
        if data.find(END_OF_IMAGE, _find_scan(data)) < 0:
            raise MediaError("is truncated: its last bytes are not the end of an image")
    return pixels


def image_suffix(data: bytes) -> str:
    """Return ``jpg`` or ``png``, by the first bytes of an image file.

    Raises:
        MediaError: the file is neither a JPEG nor a PNG image.
    """
    if data.startswith(PNG_SIGNATURE):
        return "png"
    if data.startswith(JPEG_SIGNATURE):
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


@contextmanager
def _stderr_lines() -> Iterator[list[str]]:
    """Collect the lines that C code writes to stderr; the list is filled at the end."""
    lines: list[str] = []
    saved = os.dup(2)
    reading, writing = os.pipe()
    # A full pipe would stop libjpeg for ever.
    if sys.platform != "win32" or sys.version_info >= (3, 12):
        os.set_blocking(writing, False)
    os.dup2(writing, 2)
    os.close(writing)
    try:
        yield lines
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        with open(reading, errors="replace") as file:  # noqa: PTH123 - a descriptor, not a path
            lines += file.read().splitlines()


def declared_size(data: bytes) -> tuple[int, int]:
    """Return width and height in px by the header of a PNG or JPEG file; otherwise (0, 0)."""
    if data.startswith(PNG_SIGNATURE):
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    for marker, at in _jpeg_segments(data):
        if marker in START_OF_FRAME:
            size = data[at + 5 : at + 9]
            return int.from_bytes(size[2:]), int.from_bytes(size[:2])
    return 0, 0


def _find_scan(data: bytes) -> int:
    """Return where the first pixels of a JPEG file start; thumbnails stand in front."""
    return next((at for marker, at in _jpeg_segments(data) if marker == START_OF_SCAN), 0)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and place of the segments of a JPEG file, up to the first pixels."""
    at, marker = 2, 0
    while data.startswith(JPEG_SIGNATURE) and marker != START_OF_SCAN and at + 9 <= len(data):
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker != 0xFF:
            yield marker, at
        # A byte 0xFF may stand in front of a marker, to fill space.
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
