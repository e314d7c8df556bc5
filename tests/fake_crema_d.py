"""A made-up CREMA-D: N clips in the true layout, codecs and bit rates, some of them defective.

A few seconds of video are encoded for each emotion (FLV1 480x360 with MP3, about 1 Mbit/s); a
clip's file is a row of their groups of pictures, drawn from its own seed and written tag by tag.
So 300 clips are made in seconds, no two alike, and the same ones for the same seed. An emotion has
a colour and a pitch.
"""

import csv
import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path

import av
import cv2
import numpy as np
import soundfile
import yaml
from numpy.typing import NDArray

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
ACTORS = range(1001, 1092)
FPS = Fraction(30000, 1001)
SOUND_RATE = 16000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 327656\n"

SCRIPT, SOUND, PICTURE = 18, 8, 9
GROUPS, GROUP = 7, 12


@dataclass(frozen=True)
class Expected:
    """What must become of a defective clip: which stage refuses it, with words of its reason.

    ``stage`` is None where the clip is usable all the same.
    """

    defect: str
    path: str
    stage: str | None
    reason: str = ""


@dataclass
class FakeCremaD:
    """What was made.

    Attributes:
        folder: holds ``AudioWAV/`` and ``VideoFlash/``; good for ``--source`` and for a server.
        rows: the table, as a data set's CSV has it: what the publisher promises.
        expected: by key, what must become of the defective clips; all others are good.
        twins: paths of two sound files that are the same byte for byte under different labels.
    """

    folder: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    expected: dict[str, Expected] = field(default_factory=dict)
    twins: tuple[str, ...] = ()

    @property
    def refused(self) -> dict[str, Expected]:
        """Those of ``expected`` that some stage must refuse."""
        return {key: what for key, what in self.expected.items() if what.stage}

    @property
    def accounts(self) -> dict[str, tuple[int, int, int]]:
        """Written, skipped and failed, by stage, when all of it has been prepared."""
        clips = len(self.rows)
        unfetched, undecoded = (
            sum(what.stage == stage for what in self.refused.values())
            for stage in ("fetch", "extract")
        )
        good = clips - unfetched - undecoded
        return {
            "fetch": (2 * clips - unfetched, 0, unfetched),
            "index": (clips - unfetched, unfetched, 0),
            "extract": (good, 0, undecoded),
            "frames": (good, 0, 0),
            "audio": (good, 0, 0),
        }

    def write_manifest(self, folder: Path, **where: object) -> None:
        """The data set ``fake-crema-d``; ``where`` says where its files are published."""
        with (folder / "fake-crema-d.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        facts = {
            "name": "fake-crema-d",
            "title": "CREMA-D, made up",
            "description": "as the real one in layout, codecs and trouble",
            "licence": "none",
            "visual": "video",
            "group": "actor",
            "classes": list(EMOTIONS),
            "table": "fake-crema-d.csv",
            "default_split": "published",
            "splits": {"published": {"column": "published", "val_fraction": 0.1}},
        }
        (folder / "fake-crema-d.yaml").write_text(yaml.safe_dump(facts | where))


@dataclass
class Files:
    """A clip's two files while they are being made."""

    wav: bytes
    flv: bytes


@dataclass(frozen=True)
class Defect:
    """How a clip is broken; ``at_source`` where the table still promises the good file."""

    breaks: Callable[[Files], None]
    hurt: str
    stage: str | None
    reason: str = ""
    at_source: bool = False


def make(folder: Path, clips: int, *, seed: int = 0, defects: bool = True) -> FakeCremaD:
    """Writes the files of ``clips`` clips; if asked, one with each of ``DEFECTS``, and twins."""
    made = FakeCremaD(folder)
    for name in ("AudioWAV", "VideoFlash"):
        (folder / name).mkdir(parents=True)
    draw = np.random.default_rng([seed, clips])
    stems = _stems(clips, draw)
    assert not defects or clips >= len(DEFECTS) + 10
    shuffled = [stems[i] for i in draw.permutation(clips)]
    chosen = dict(zip(shuffled, DEFECTS if defects else (), strict=False))
    elder, younger = _twins(shuffled[len(chosen) :]) if defects else ("", "")
    made.twins = tuple(f"AudioWAV/{stem}.wav" for stem in (elder, younger) if stem)
    for stem in stems:
        paths = {"wav": f"AudioWAV/{stem}.wav", "flv": f"VideoFlash/{stem}.flv"}
        files = make_clip(stem, seed)
        if stem == younger:
            wav = make_clip(elder, seed).wav
            files = Files(wav, make_clip(stem, seed, seconds=_seconds(wav)).flv)
        promised = Files(files.wav, files.flv)
        if stem in chosen:
            defect = DEFECTS[chosen[stem]]
            defect.breaks(files)
            promised = promised if defect.at_source else files
            made.expected[stem] = Expected(
                chosen[stem], paths[defect.hurt], defect.stage, defect.reason
            )
        for kind, path in paths.items():
            data: bytes | None = getattr(files, kind)
            if data is not None:
                (folder / path).write_bytes(data)
        made.rows.append(_row(stem, promised, paths))
    return made


def make_clip(stem: str, seed: int = 0, seconds: float | None = None) -> Files:
    """The sound and the video of one clip, 1.3 to 4 s long unless told."""
    digest = hashlib.sha256(f"{seed} {stem}".encode()).digest()
    draw = np.random.default_rng(list(digest))
    emotion = EMOTIONS.index(stem.split("_")[2])
    frames = round((seconds or draw.triangular(1.3, 2.3, 4.0)) * FPS)
    wav = _wav(_speech(draw, emotion, float(frames / FPS)))
    return Files(wav, _flash(_shuffled(draw, emotion, frames), float(frames / FPS)))


def _stems(clips: int, draw: np.random.Generator) -> list[str]:
    every = [
        f"{actor}_{sentence}_{emotion}_{level}"
        for actor in ACTORS
        for sentence in SENTENCES
        for emotion in EMOTIONS
        for level in (("LO", "MD", "HI") if sentence == "IEO" and emotion != "NEU" else ("XX",))
    ]
    return sorted(every[i] for i in draw.permutation(len(every))[:clips])


def _twins(stems: list[str]) -> tuple[str, str]:
    """Two with different emotions."""
    return stems[0], next(stem for stem in stems if stem[9:12] != stems[0][9:12])


def _row(stem: str, promised: Files, paths: Mapping[str, str]) -> dict[str, str]:
    actor, _, emotion, _ = stem.split("_")
    row = {"key": stem, "label": str(EMOTIONS.index(emotion)), "group": actor}
    is_test = hashlib.sha256(stem.encode()).digest()[0] < 26
    row["published"] = "test" if is_test else "train"
    for column, kind in (("audio", "wav"), ("visual", "flv")):
        data = getattr(promised, kind)
        row[f"{column}_path"] = paths[kind]
        row[f"{column}_sha256"] = hashlib.sha256(data).hexdigest()
        row[f"{column}_bytes"] = str(len(data))
    return row


# --- sound ---------------------------------------------------------------------------------------


def _speech(draw: np.random.Generator, emotion: int, seconds: float) -> NDArray[np.int16]:
    time = np.arange(int(seconds * SOUND_RATE)) / SOUND_RATE
    pitch = 110 * 2 ** (emotion / 6 + draw.normal(0, 0.02))
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
    syllables = np.clip(np.sin(2 * np.pi * draw.uniform(3, 5) * time), 0, 1)
    sound = tone * syllables * draw.uniform(1000, 6000) + draw.normal(0, 30, len(time))
    return sound.astype(np.int16)


def _wav(samples: NDArray[np.int16]) -> bytes:
    buffer = BytesIO()
    soundfile.write(buffer, samples, SOUND_RATE, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def _seconds(wav: bytes) -> float:
    return (len(wav) - 44) / 2 / SOUND_RATE


# --- video ---------------------------------------------------------------------------------------


@cache
def _pool(emotion: int) -> tuple[list[bytes], list[bytes]]:
    """Bodies of the video tags, a whole number of groups of pictures, and of the sound tags."""
    buffer = BytesIO()
    with av.open(buffer, "w", format="flv") as container:
        _encode(container, emotion)
    tags = list(read_flv_tags(buffer.getvalue()))
    pictures, sounds = ([body for kind, body in tags if kind == k] for k in (PICTURE, SOUND))
    assert all(body[0] >> 4 == 1 for body in pictures[::GROUP]), "a group starts with a key frame"
    return pictures, sounds


def _encode(container: av.container.OutputContainer, emotion: int) -> None:
    video = container.add_stream("flv", rate=FPS)
    video.width, video.height, video.pix_fmt = 480, 360, "yuv420p"
    video.bit_rate, video.gop_size = 1_000_000, GROUP
    sound = container.add_stream("libmp3lame", rate=44100, layout="mono")
    draw = np.random.default_rng(emotion)
    # Soft shapes that all drift, under grain: as costly to decode, within a few per cent, as real
    # faces encoded alike.
    ground = cv2.GaussianBlur(draw.integers(0, 255, (360, 480, 3), np.uint8), (0, 0), 6)
    ground = cv2.normalize(ground, ground, 40, 160, cv2.NORM_MINMAX)
    colour = draw.permutation(np.array([40, 140, 240], np.uint8))
    grain = draw.integers(0, 6, (400, 520, 1), np.uint8)
    for i in range(GROUPS * GROUP):
        top, left = draw.integers(0, 40, 2)
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


def _shuffled(
    draw: np.random.Generator, emotion: int, frames: int
) -> list[tuple[int, float, bytes]]:
    """Tags of ``frames`` pictures and as much sound: kind, time in s, body."""
    pictures, sounds = _pool(emotion)
    # No group again before all were shown: decord's frames may not repeat.
    rounds = frames // (GROUP * GROUPS) + 1
    order = np.concatenate([draw.permutation(GROUPS) for _ in range(rounds)])
    chosen = [pictures[g * GROUP + i] for g in order for i in range(GROUP)][:frames]
    tags = [(PICTURE, float(i / FPS), body) for i, body in enumerate(chosen)]
    tags += [
        (SOUND, i * 1152 / 44100, sounds[i % len(sounds)])
        for i in range(int(frames / FPS * 44100 / 1152))
    ]
    return sorted(tags, key=lambda tag: (tag[1], -tag[0]))


def _flash(tags: list[tuple[int, float, bytes]], duration: float | None) -> bytes:
    """A flash video of such tags; its header tells its duration in s unless that is None."""
    kinds = {kind for kind, _, _ in tags}
    header = b"FLV\x01" + bytes([(SOUND in kinds) * 4 + (PICTURE in kinds)]) + struct.pack(">I", 9)
    facts = {"width": 480.0, "height": 360.0, "framerate": float(FPS), "videocodecid": 2.0}
    if duration is not None:
        facts = {"duration": duration} | facts
        tags = [(SCRIPT, 0.0, _metadata(facts)), *tags]
    return header + bytes(4) + b"".join(_tag(*tag) for tag in tags)


def _metadata(facts: Mapping[str, float]) -> bytes:
    body = b"\x02\x00\x0aonMetaData\x08" + struct.pack(">I", len(facts))
    for name, value in facts.items():
        body += struct.pack(">H", len(name)) + name.encode() + b"\x00" + struct.pack(">d", value)
    return body + b"\x00\x00\x09"


def _tag(kind: int, seconds: float, body: bytes) -> bytes:
    time = round(1000 * seconds)
    head = bytes([kind]) + len(body).to_bytes(3, "big") + (time % 2**24).to_bytes(3, "big")
    head += bytes([time >> 24, 0, 0, 0])
    return head + body + struct.pack(">I", len(head) + len(body))


def read_flv_tags(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of every tag of a flash video."""
    at = 13
    while at + 11 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        yield data[at], data[at + 11 : at + 11 + size]
        at += size + 15


# --- defects -------------------------------------------------------------------------------------


def _sets(**values: bytes | None) -> Callable[[Files], None]:
    def breaks(files: Files) -> None:
        for name, value in values.items():
            setattr(files, name, value)

    return breaks


def _cuts(kind: str, share: float) -> Callable[[Files], None]:
    def breaks(files: Files) -> None:
        data = getattr(files, kind)
        setattr(files, kind, data[: int(share * len(data))])

    return breaks


def _flip(files: Files) -> None:
    middle = len(files.flv) // 2
    files.flv = files.flv[:middle] + bytes([files.flv[middle] ^ 1]) + files.flv[middle + 1 :]


def _films(frames: int, *, header: bool = True, share: float = 1.0) -> Callable[[Files], None]:
    """Replaces the video by one of so many frames, with a duration in its header or without."""

    def breaks(files: Files) -> None:
        tags = _shuffled(np.random.default_rng(frames), 0, frames)
        data = _flash(tags, float(frames / FPS) if header else None)
        files.flv = data[: int(share * len(data))]

    return breaks


def _drop_duration(files: Files) -> None:
    """A header without a duration over pictures that last as long as the sound."""
    _films(round(_seconds(files.wav) * FPS), header=False)(files)


def _only_sound(files: Files) -> None:
    sounds = [tag for tag in _shuffled(np.random.default_rng(0), 0, 75) if tag[0] == SOUND]
    files.flv = _flash(sounds, 2.5)


def _no_picture(files: Files) -> None:
    files.flv = _flash([], 2.5)


def _quiet(step: int) -> Callable[[Files], None]:
    def breaks(files: Files) -> None:
        count = (len(files.wav) - 44) // 2
        files.wav = _wav((np.arange(count) % 2 * step).astype(np.int16))

    return breaks


# By name; the first word of a name says which file it hits.
DEFECTS: dict[str, Defect] = {
    # The published files are broken, and the table says so truly: extract must find out.
    "flv cut in half": Defect(_cuts("flv", 0.5), "flv", "extract", r"is truncated: \d+ of the \d+"),
    "flv cut at 90 %": Defect(_cuts("flv", 0.9), "flv", "extract", r"is truncated: \d+ of the \d+"),
    "flv empty": Defect(_sets(flv=b""), "flv", "extract", "is empty"),
    "flv of one frame": Defect(_films(1), "flv", "extract", "holds a single frame"),
    "flv of text": Defect(_sets(flv=b"<html>404</html>\n" * 99), "flv", "extract", "not a video"),
    "flv without picture": Defect(_only_sound, "flv", "extract", "holds no video stream"),
    "flv without frames": Defect(_no_picture, "flv", "extract", "holds no frame"),
    "flv too long": Defect(_films(450), "flv", "extract", r"lasts 15.0 s where its sound lasts"),
    "flv too short": Defect(_films(9), "flv", "extract", r"is truncated: 0.3 s of picture"),
    "flv cut and without duration": Defect(
        _films(75, header=False, share=0.2), "flv", "extract", "its container gives no duration"
    ),
    "flv whole but without duration": Defect(_drop_duration, "flv", None),
    "wav silent": Defect(_quiet(0), "wav", "extract", "is digital silence"),
    "wav nearly silent": Defect(_quiet(1), "wav", "extract", "is silent: its peak is -90 dBFS"),
    "wav cut": Defect(_cuts("wav", 0.7), "wav", "extract", r"is truncated: \d+ of the \d+ bytes"),
    "wav without samples": Defect(
        _sets(wav=_wav(np.zeros(0, np.int16))), "wav", "extract", "holds no audio sample"
    ),
    # The source folder is broken: fetch must find out.
    "flv pointer": Defect(_sets(flv=POINTER % 1), "flv", "fetch", "LFS pointer", at_source=True),
    "wav pointer": Defect(_sets(wav=POINTER % 2), "wav", "fetch", "LFS pointer", at_source=True),
    "flv missing": Defect(_sets(flv=None), "flv", "fetch", "is missing", at_source=True),
    "flv altered": Defect(_flip, "flv", "fetch", "does not match the SHA-256", at_source=True),
    "wav shorter": Defect(_cuts("wav", 0.9), "wav", "fetch", "where the manifest", at_source=True),
}
