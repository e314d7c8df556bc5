"""The media of the demo: small real files, written through real codecs from a seed.

There are six classes: three shapes, which only a video shows, times two pitch contours, which only
a sound has. A perfect observer of the video alone is right in 1/2 of the cases, a perfect observer
of the sound alone in 1/3, and a perfect observer of both always.
"""

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Height and width of a frame in px, and frames per second.
SIDE = 96
FPS = 15

# Sample rate of the sound in Hz.
SAMPLE_RATE = 22050


def write_video(path: Path, *, key: str, shape: str) -> None:
    """Write an MPEG-4 clip of 1.6 to 2.4 s: a moving shape on a noisy background.

    A ring drifts sideways, a cross up and down, a triangle along the diagonal. Colour, size, speed,
    starting point and background differ from clip to clip.

    Args:
        path: where the clip goes.
        key: key of the clip; all random numbers come from the key.
        shape: ``ring``, ``cross`` or ``triangle``.
    """
    import cv2

    random = _generator(key, "video")
    count = round(_seconds(key) * FPS)
    size, speed = random.uniform(14, 24), random.uniform(0.5, 1.2)
    colour = tuple(float(c) for c in random.uniform(120, 255, 3))
    background = random.uniform(10, 80, 3)
    start = random.uniform(30, 66, 2)
    direction = np.array({"ring": (1, 0), "cross": (0, 1), "triangle": (0.7, 0.7)}[shape])
    direction = direction * random.choice((-1, 1))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (SIDE, SIDE))
    for i in range(count):
        noise = random.normal(0, 4, (SIDE, SIDE, 1))
        frame = np.clip(background + noise, 0, 255).astype(np.uint8)
        x, y = np.clip(start + direction * speed * (i - count / 2), 20, SIDE - 20)
        _draw(frame, shape, (float(x), float(y)), float(size), colour)
        writer.write(frame)
    writer.release()


def audio_bytes(*, key: str, contour: str) -> bytes:
    """Return a 16-bit WAV of 1.6 to 2.4 s at 22,050 Hz: tone pulses whose pitch rises or falls.

    Rising tones come in even pulses, falling tones in long-short pairs. Base pitch, tempo, level
    and background noise differ from clip to clip.

    Args:
        key: key of the clip; all random numbers come from the key.
        contour: ``rising`` or ``falling``.
    """
    import soundfile

    random = _generator(key, "audio")
    seconds = _seconds(key)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    beat = time * random.uniform(3, 5) % 1
    base, octaves = random.uniform(250, 900), random.uniform(0.8, 1.6)
    rise = time / seconds if contour == "rising" else 1 - time / seconds
    phase = 2 * np.pi * np.cumsum(base * 2 ** (octaves * rise)) / SAMPLE_RATE
    tone = np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)
    gate = beat < 0.5 if contour == "rising" else (beat < 0.6) | ((beat > 0.75) & (beat < 0.9))
    noise = random.normal(0, random.uniform(0.005, 0.05), len(time))
    samples = np.clip(random.uniform(0.1, 0.5) * tone * gate + noise, -1, 1)
    buffer = BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def _draw(
    frame: NDArray[np.uint8],
    shape: str,
    centre: tuple[float, float],
    size: float,
    colour: tuple[float, ...],
) -> None:
    """Draw a shape into a frame ``[H, W, 3]``; ``centre`` and ``size`` are in px."""
    import cv2

    x, y = centre
    if shape == "ring":
        cv2.circle(frame, (int(x), int(y)), int(size), colour, max(3, int(size / 4)), cv2.LINE_AA)
    elif shape == "cross":
        arm, half = size, size / 4
        for dx, dy in ((arm, half), (half, arm)):
            cv2.rectangle(frame, (int(x - dx), int(y - dy)), (int(x + dx), int(y + dy)), colour, -1)
    else:
        corners = [(x, y - size), (x - size, y + 0.8 * size), (x + size, y + 0.8 * size)]
        cv2.fillPoly(frame, [np.array(corners, np.int32)], colour, cv2.LINE_AA)


def _seconds(key: str) -> float:
    """Return the duration of a clip in s; video and sound of the clip have the same duration."""
    return float(_generator(key, "duration").uniform(1.6, 2.4))


def _generator(key: str, kind: str) -> np.random.Generator:
    """Return a generator of random numbers that depends on the clip and the kind alone."""
    seed = hashlib.sha256(f"avsnn demo {kind} {key}".encode()).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(seed[:8], "little")))
