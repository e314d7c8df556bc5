"""Makes clips like CREMA-D's, in the true codecs and bit rates, fast and repeatable.

Two short tracks are encoded for each emotion (video FLV1 480x360 at about 1 Mbit/s, sound MP3). The
file of a clip is a sequence of groups of pictures of these tracks, in an order that the seed of the
clip draws. So 300 clips take seconds, no two videos are equal, and the same seed gives the same
bytes. Each emotion has its own colour and its own pitch.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from io import BytesIO

import av
import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
FPS = Fraction(30000, 1001)
SOUND_RATE = 16000

# Types of a tag in a flash video.
SCRIPT, SOUND, PICTURE = 18, 8, 9
# Number of groups of pictures that are encoded for an emotion, and number of pictures in a group.
GROUPS, GROUP = 7, 12

# A tag of a flash video: type, time in s, body.
Tag = tuple[int, float, bytes]


@dataclass
class Files:
    """The content of the two files of a clip."""

    wav: bytes
    flv: bytes


def make_clip(stem: str, seed: int = 0, seconds: float | None = None) -> Files:
    """Return the sound and the video of one clip.

    Args:
        stem: key of the clip, such as ``1001_DFA_ANG_XX``; the third word is the emotion.
        seed: another seed gives other content.
        seconds: duration in s; None draws a duration from 1.3 to 4 s.
    """
    digest = hashlib.sha256(f"{seed} {stem}".encode()).digest()
    rng = np.random.default_rng(list(digest))
    emotion = EMOTIONS.index(stem.split("_")[2])
    frames = round((seconds or rng.triangular(1.3, 2.3, 4.0)) * FPS)
    wav = encode_wav(_speech(rng, emotion, float(frames / FPS)))
    return Files(wav, encode_flv(draw_tags(rng, emotion, frames), float(frames / FPS)))


# --- sound ---------------------------------------------------------------------------------------


def _speech(rng: np.random.Generator, emotion: int, seconds: float) -> NDArray[np.int16]:
    time = np.arange(int(seconds * SOUND_RATE)) / SOUND_RATE
    pitch = 110 * 2 ** (emotion / 6 + rng.normal(0, 0.02))
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(3, 5) * time), 0, 1)
    sound = tone * syllables * rng.uniform(1000, 6000) + rng.normal(0, 30, len(time))
    return sound.astype(np.int16)


def encode_wav(samples: NDArray[np.int16]) -> bytes:
    """Return a WAV file of samples at ``SOUND_RATE``."""
    buffer = BytesIO()
    soundfile.write(buffer, samples, SOUND_RATE, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def wav_seconds(wav: bytes) -> float:
    """Return the duration in s of a file from :func:`encode_wav`; the header has 44 bytes."""
    return (len(wav) - 44) / 2 / SOUND_RATE


# --- video ---------------------------------------------------------------------------------------


@cache
def _encoded_tracks(emotion: int) -> tuple[list[bytes], list[bytes]]:
    """Return the bodies of the video tags, in whole groups of pictures, and of the sound tags."""
    buffer = BytesIO()
    with av.open(buffer, "w", format="flv") as container:
        _encode(container, emotion)
    tags = list(_split_tags(buffer.getvalue()))
    pictures, sounds = ([body for kind, body in tags if kind == k] for k in (PICTURE, SOUND))
    assert all(body[0] >> 4 == 1 for body in pictures[::GROUP]), "a group starts with a key frame"
    return pictures, sounds


def _encode(container: av.container.OutputContainer, emotion: int) -> None:
    video = container.add_stream("flv", rate=FPS)
    video.width, video.height, video.pix_fmt = 480, 360, "yuv420p"
    video.bit_rate, video.gop_size = 1_000_000, GROUP
    sound = container.add_stream("libmp3lame", rate=44100, layout="mono")
    rng = np.random.default_rng(emotion)
    # Soft shapes that drift, under grain, cost as much to decode as real faces in the same codec,
    # within a few per cent.
    ground = cv2.GaussianBlur(rng.integers(0, 255, (360, 480, 3), np.uint8), (0, 0), 6)
    ground = cv2.normalize(ground, ground, 40, 160, cv2.NORM_MINMAX)
    colour = rng.permutation(np.array([40, 140, 240], np.uint8))
    grain = rng.integers(0, 6, (400, 520, 1), np.uint8)
    for i in range(GROUPS * GROUP):
        top, left = rng.integers(0, 40, 2)
        image = np.roll(ground, (i // 2, i), (0, 1))
        x, y = 240 + int(120 * np.sin(i / 9)), 180 + int(60 * np.cos(i / 7))
        face = image[y - 70 : y + 70, x - 60 : x + 60]
        face[:] = face // 2 + colour // 2
        image += grain[top : top + 360, left : left + 480]
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = i, 1 / FPS
        container.mux(video.encode(frame))
    container.mux(video.encode(None))
    tone = 3000 * np.sin(np.arange(3 * 44100) * 2 * np.pi * 110 * 2 ** (emotion / 6) / 44100)
    samples = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], "s16", "mono")
    samples.sample_rate = 44100
    resampler = av.AudioResampler("s16p", "mono", 44100, frame_size=1152)
    for part in (*resampler.resample(samples), *resampler.resample(None), None):
        container.mux(sound.encode(part))


def draw_tags(rng: np.random.Generator, emotion: int, frames: int) -> list[Tag]:
    """Return the tags of ``frames`` pictures and of sound of the same duration, by time."""
    pictures, sounds = _encoded_tracks(emotion)
    # A group comes again only after all other groups, so that two frames of a video rarely repeat.
    rounds = frames // (GROUP * GROUPS) + 1
    order = np.concatenate([rng.permutation(GROUPS) for _ in range(rounds)])
    chosen = [pictures[g * GROUP + i] for g in order for i in range(GROUP)][:frames]
    tags = [(PICTURE, float(i / FPS), body) for i, body in enumerate(chosen)]
    tags += [
        (SOUND, i * 1152 / 44100, sounds[i % len(sounds)])
        for i in range(int(frames / FPS * 44100 / 1152))
    ]
    return sorted(tags, key=lambda tag: (tag[1], -tag[0]))


def encode_flv(tags: list[Tag], duration: float | None) -> bytes:
    """Return a flash video of tags; the header gives a duration (s) that is not None."""
    kinds = {kind for kind, _, _ in tags}
    header = b"FLV\x01" + bytes([(SOUND in kinds) * 4 + (PICTURE in kinds)]) + struct.pack(">I", 9)
    facts = {"width": 480.0, "height": 360.0, "framerate": float(FPS), "videocodecid": 2.0}
    if duration is not None:
        facts = {"duration": duration} | facts
        tags = [(SCRIPT, 0.0, _metadata(facts)), *tags]
    return header + bytes(4) + b"".join(_encode_tag(*tag) for tag in tags)


def _metadata(facts: Mapping[str, float]) -> bytes:
    body = b"\x02\x00\x0aonMetaData\x08" + struct.pack(">I", len(facts))
    for name, value in facts.items():
        body += struct.pack(">H", len(name)) + name.encode() + b"\x00" + struct.pack(">d", value)
    return body + b"\x00\x00\x09"


def _encode_tag(kind: int, seconds: float, body: bytes) -> bytes:
    time = round(1000 * seconds)
    head = bytes([kind]) + len(body).to_bytes(3, "big") + (time % 2**24).to_bytes(3, "big")
    head += bytes([time >> 24, 0, 0, 0])
    return head + body + struct.pack(">I", len(head) + len(body))


def _split_tags(flv: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the body of every tag of a flash video."""
    start = 13
    while start + 11 <= len(flv):
        size = int.from_bytes(flv[start + 1 : start + 4], "big")
        yield flv[start], flv[start + 11 : start + 11 + size]
        start += size + 15
