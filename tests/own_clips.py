"""Makes tiny clips such as people have: videos with sound, images with sounds, in any folders."""

from functools import cache
from io import BytesIO
from pathlib import Path

import av
import cv2
import numpy as np
import soundfile

# Height and width of a frame in px, frames per second, and sample rate of a sound in Hz.
SIDE, FPS, RATE = 48, 10, 8000


@cache
def video_bytes(shade: int, seconds: float = 0.5, *, has_sound: bool = True) -> bytes:
    """Return an MP4 of one shade of grey with a tone whose pitch follows the shade."""
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=FPS)
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "yuv420p"
        sound = container.add_stream("aac", rate=RATE, layout="mono") if has_sound else None
        for i in range(round(seconds * FPS)):
            picture = np.full((SIDE, SIDE, 3), shade, np.uint8)
            picture[i : i + 8] = 255 - shade
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        if sound is not None:
            samples = (tone(shade, seconds) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
            frame.sample_rate = RATE
            resampler = av.AudioResampler("fltp", "mono", RATE, frame_size=1024)
            for part in (*resampler.resample(frame), *resampler.resample(None), None):
                container.mux(sound.encode(part))
    return buffer.getvalue()


def tone(shade: int, seconds: float) -> np.ndarray:
    """Return a tone whose pitch follows the shade."""
    time = np.arange(int(seconds * RATE)) / RATE
    return 0.4 * np.sin(2 * np.pi * (200 + 5 * shade) * time)


@cache
def wav_bytes(shade: int, seconds: float = 0.5, rate: int = RATE) -> bytes:
    buffer = BytesIO()
    soundfile.write(buffer, tone(shade, seconds), rate, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


@cache
def png_bytes(shade: int, side: int = SIDE) -> bytes:
    return cv2.imencode(".png", np.full((side, side, 3), shade, np.uint8))[1].tobytes()


def put(folder: Path, *names: str) -> None:
    """Write files; the suffix of a name says what the file is, and its folders give the content."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = sum(name.encode()) % 200
        make = {".mp4": video_bytes, ".wav": wav_bytes, ".png": png_bytes}[path.suffix.lower()]
        path.write_bytes(make(shade))


def clip_names(*classes: str, speakers: int = 4, takes: int = 3, suffix: str = ".mp4") -> list[str]:
    """Return names such as ``cat/anna-1.mp4``: every speaker has some takes of every class."""
    people = ("anna", "ben", "carla", "dan", "eve", "finn")[:speakers]
    return [
        f"{label}/{person}-{take}{suffix}"
        for label in classes
        for person in people
        for take in range(1, takes + 1)
    ]
