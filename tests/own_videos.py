"""Videos with sound as a person records them: folders of classes, one file for each clip."""

import hashlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

# What a class looks like and sounds like: the shape, and the factor by which the pitch changes.
CLASSES = {"bird": ("ring", 2.0), "cat": ("cross", 1.0), "dog": ("triangle", 0.5)}
FPS, SIDE, RATE = 12, 96, 16000

# Codecs of picture and sound that each container holds.
CODECS = {
    "mp4": ("mpeg4", "aac"),
    "mov": ("mjpeg", "pcm_s16le"),
    "mkv": ("mpeg4", "flac"),
    "webm": ("libvpx", "libopus"),
    "avi": ("mpeg4", "libmp3lame"),
    "flv": ("flv", "libmp3lame"),
}


def write_class_folders(
    folder: Path, *, clips: int, suffix: str = "mp4", seconds: float = 1.5
) -> list[Path]:
    """Write clips in turn for every class, as ``CLASS/NAME``; return the paths below the folder."""
    paths = []
    for number in range(clips):
        name = list(CLASSES)[number % len(CLASSES)]
        path = Path(name, f"{name}_{number:03d}.{suffix}")
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_video(folder / path, name, seconds=seconds)
        paths.append(path)
    return paths


def write_video(path: Path, name: str, *, seconds: float = 1.5, sound: bool = True) -> None:
    """Write a clip of a class; the file name decides everything else, and gives the same bytes.

    Args:
        path: where the clip goes; the suffix decides the container and the codecs.
        name: name of the class.
        seconds: duration in s.
        sound: whether the clip has a sound track.
    """
    rng = np.random.default_rng(list(hashlib.sha256(path.name.encode()).digest()))
    shape, octaves = CLASSES[name]
    picture_codec, sound_codec = CODECS[path.suffix[1:]]
    with av.open(str(path), "w") as container:
        video = container.add_stream(picture_codec, rate=FPS)
        video.width, video.height = SIDE, SIDE
        video.pix_fmt = "yuvj420p" if picture_codec == "mjpeg" else "yuv420p"
        rate = 48000 if sound_codec == "libopus" else 44100 if path.suffix == ".flv" else RATE
        audio = container.add_stream(sound_codec, rate=rate, layout="mono") if sound else None
        colour = tuple(map(int, rng.integers(120, 255, 3)))
        ground, at = rng.integers(10, 80, 3), rng.integers(34, 62, 2)
        for index in range(round(seconds * FPS)):
            image = np.full((SIDE, SIDE, 3), ground, np.uint8)
            image += rng.integers(0, 12, image.shape, np.uint8)
            _draw(image, shape, (int(at[0]) + index % 8, int(at[1])), colour)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            for frame in _sound(rng, octaves, seconds, rate):
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def _sound(rng, octaves: float, seconds: float, rate: int) -> list[av.AudioFrame]:
    time = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(350, 500) * octaves
    tone = np.sin(2 * np.pi * pitch * time) + 0.4 * np.sin(4 * np.pi * pitch * time)
    beat = (time * rng.uniform(2, 5)) % 1 < 0.6
    samples = (8000 * tone * beat + rng.normal(0, 200, len(time))).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return [frame]


def _draw(image, shape: str, at: tuple[int, int], colour: tuple[int, ...]) -> None:
    (x, y), size = at, 20
    if shape == "ring":
        cv2.circle(image, (x, y), size, colour, 5)
    elif shape == "cross":
        cv2.rectangle(image, (x - size, y - 5), (x + size, y + 5), colour, -1)
        cv2.rectangle(image, (x - 5, y - size), (x + 5, y + size), colour, -1)
    else:
        corners = [(x, y - size), (x - size, y + size), (x + size, y + size)]
        cv2.fillPoly(image, [np.array(corners, np.int32)], colour)
