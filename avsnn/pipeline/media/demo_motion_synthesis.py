"""The media of demo-motion: small real files of motions, which a single frame cannot show.

There are four classes: a square moves left, right, up or down. What leaves the picture on one side
comes back on the other side, so the square is equally likely to be anywhere in every frame of every
class: a single frame tells nothing. The sound is noise of any loudness and tells nothing either. An
observer of two frames is right.
"""

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np

# Height and width of a frame in px.
SIDE = 64

# A clip has a frame in each second, so that the rule 1fps of `prepare` keeps all frames.
FPS = 1
FRAMES = 8

# Sample rate of the sound in Hz. The sound is noise, which needs no higher rate.
SAMPLE_RATE = 4000

# Columns to the right and rows down that a square moves, in units of its speed.
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def write_video(path: Path, *, key: str, motion: str) -> None:
    """Write an MPEG-4 clip of 8 frames in 8 s: a bright square that moves on a dark background.

    Size, speed, starting point, brightness and background differ from clip to clip.

    Args:
        path: where the clip goes.
        key: key of the clip; all random numbers come from the key.
        motion: ``left``, ``right``, ``up`` or ``down``.
    """
    import cv2

    random = _generator(key, "video")
    size, speed = int(random.integers(12, 20)), random.uniform(4, 8)
    start = random.uniform(0, SIDE, 2)
    dark, bright = random.uniform(10, 80, 3), random.uniform(150, 255, 3)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (SIDE, SIDE))
    for number in range(FRAMES):
        frame = np.tile(dark, (SIDE, SIDE, 1))
        frame[:size, :size] = bright
        x, y = np.floor(start + np.array(DIRECTIONS[motion]) * speed * number).astype(int)
        moved = np.roll(frame, (y, x), axis=(0, 1)) + random.normal(0, 4, (SIDE, SIDE, 1))
        writer.write(np.clip(moved, 0, 255).astype(np.uint8))
    writer.release()


def audio_bytes(*, key: str) -> bytes:
    """Return a 16-bit WAV of 8 s at 4,000 Hz: white noise, whose level differs from clip to clip.

    Args:
        key: key of the clip; all random numbers come from the key.
    """
    import soundfile

    random = _generator(key, "audio")
    level = random.uniform(0.02, 0.2)
    samples = np.clip(random.normal(0, level, FRAMES * SAMPLE_RATE // FPS), -1, 1)
    buffer = BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def _generator(key: str, kind: str) -> np.random.Generator:
    """Return a generator of random numbers that depends on the clip and the kind alone."""
    seed = hashlib.sha256(f"avsnn demo-motion {kind} {key}".encode()).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(seed[:8], "little")))
