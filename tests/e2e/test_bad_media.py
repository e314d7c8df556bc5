"""Each clip that is no recording, or half of one, is a failure of `prepare` with its reason."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from avsnn.datasets_manifest.clips import COLUMNS
from tests.conftest import ALONE, Command
from tests.fake_clips import make_clip
from tests.pipeline.media import test_sound_kinds as sounds
from tests.pipeline.media import test_video_kinds as videos

MANIFEST = """\
name: mine
title: Mine
description: Clips in many formats
licence: none
visual: {visual}
group: none
classes: [a, b]
table: mine.csv
kaggle: nobody/nothing
default_split: published
splits:
  published: {{first_train: 0.5}}
"""

# Name of a sound file, codec, and options of the container.
FORMATS = [
    ("flac", "flac", {}),
    ("mp3", "libmp3lame", {}),
    ("opus", "libopus", {}),
    ("m4a", "aac", {}),
    ("mp4", "aac", {"movflags": "faststart"}),
    ("mkv", "aac", {}),
    ("webm", "libopus", {}),
    ("avi", "libmp3lame", {}),
]

LOUD = sounds.tone(32000) + np.random.default_rng(0).normal(0, 0.05, 32000)


def write_sound(path: Path, signal: sounds.Signal) -> Path:
    """Write 2 s of sound in the format of the path's suffix."""
    if path.suffix == ".wav":
        soundfile.write(path, signal, 16000, "PCM_16")
        return path
    codec, options = next((c, o) for suffix, c, o in FORMATS if path.suffix == f".{suffix}")
    if path.suffix == ".opus":
        return sounds.encode(path.with_suffix(".ogg"), codec, signal, 16000).rename(path)
    return sounds.encode(path, codec, signal, 16000, **options)


def halve(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


class Clips:
    """A data set of clips, and the reason for which each bad clip must fail."""

    def __init__(self, tmp_path: Path, visual: str) -> None:
        self.root = tmp_path
        self.rows: list[list[str]] = []
        self.reasons: dict[str, str] = {}
        (tmp_path / "own").mkdir()
        (tmp_path / "source").mkdir()
        (tmp_path / "own" / "mine.yaml").write_text(MANIFEST.format(visual=visual))

    def add(self, sound: Path, visual: Path, reason: str = "") -> None:
        """Add a clip of two files in the source folder; a clip without a reason is good."""
        key = f"clip{len(self.rows)}"
        self.rows.append(
            [key, str(len(self.rows) % 2), key, sound.name, "", "", visual.name, "", ""]
        )
        if reason:
            self.reasons[key] = reason

    def prepare(self, avsnn: Command) -> None:
        """Prepare the clips; each bad clip fails with its reason, and each good clip is written."""
        with (self.root / "own" / "mine.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *self.rows])
        done = avsnn("prepare", "mine", "--source", "source", "--max-failures", "0.95", *ALONE)
        assert done.returncode == 0, done.stderr
        folder = self.root / "data" / "mine"
        lines = (folder / "failures.jsonl").read_text().splitlines()
        found = {row["key"]: row["reason"] for row in map(json.loads, lines)}
        wrong = {
            key: (found.get(key), self.reasons.get(key))
            for key in found.keys() | self.reasons.keys()
            if key not in found or not re.search(self.reasons.get(key, "no reason"), found[key])
        }
        assert wrong == {}
        (index,) = folder.glob("index/*/clips.jsonl")
        assert len(index.read_text().splitlines()) == len(self.rows)


@pytest.fixture
def make_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Clips]:
    monkeypatch.setenv("AVSNN_DATASETS", str(tmp_path / "own"))
    return lambda visual: Clips(tmp_path, visual)


@pytest.mark.long
def test_sounds_and_videos_that_are_no_recordings_are_said(
    avsnn: Command, make_clips: Callable[[str], Clips]
) -> None:
    clips = make_clips("video")
    source = clips.root / "source"
    picture = videos.encode(source / "picture.mp4", "libx264", videos.constant(50))
    for suffix in ("wav", *(suffix for suffix, _, _ in FORMATS)):
        clips.add(write_sound(source / f"good.{suffix}", LOUD), picture)
        silent = write_sound(source / f"silent.{suffix}", np.zeros(32000))
        clips.add(silent, picture, r"audio silent\.\w+ is (digital silence|silent)")
        half = write_sound(source / f"half.{suffix}", LOUD)
        halve(half)
        clips.add(half, picture, rf"audio half\.{suffix} is truncated: ")
        # Opus removes a constant voltage itself, and silence with a click is left.
        if suffix not in ("opus", "webm"):
            offset = write_sound(source / f"offset.{suffix}", np.full(32000, 0.2))
            clips.add(offset, picture, r"audio offset\.\w+ is silent: all its samples are close to")
    for suffix, kind in (("wav", "WAV"), ("au", "AU"), ("aiff", "AIFF"), ("flac", "FLAC")):
        for rate in (8, 900, 1_000_000):
            if kind != "FLAC" or rate < 10**6:
                path = source / f"rate{rate}.{suffix}"
                soundfile.write(path, LOUD[:4000], rate, "PCM_16", format=kind)
                clips.add(path, picture, rf"has a sample rate of {rate:,} Hz, which is outside")
    rate = sounds.encode(source / "rate500.mkv", "pcm_s16le", LOUD[:4000], 500)
    clips.add(rate, picture, "has a sample rate of 500 Hz, which is outside")

    loud = source / "good.wav"
    for name, codec in (("v.mkv", "libx264"), ("v.webm", "libvpx"), ("v.avi", "mpeg4")):
        video = videos.encode(source / name, codec, videos.constant(50))
        clips.add(loud, video)
        half = Path(shutil.copy(video, source / f"half-{name}"))
        halve(half)
        clips.add(loud, half, rf"video half-{name} is (truncated: |not a video)")
    flash = source / "half.flv"
    flash.write_bytes(make_clip("1001_DFA_ANG_XX", seconds=2).flv)
    halve(flash)
    clips.add(loud, flash, r"video half\.flv is truncated: ")
    clips.prepare(avsnn)


def test_images_that_are_damaged_are_said(
    avsnn: Command, make_clips: Callable[[str], Clips]
) -> None:
    clips = make_clips("image")
    source = clips.root / "source"
    sound = write_sound(source / "good.wav", LOUD)
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    pixels = cv2.GaussianBlur(pixels, (0, 0), 3)
    for suffix, reason in (
        ("jpg", r"is (corrupt|truncated)|not an image"),
        ("png", "not an image"),
    ):
        good = source / f"good.{suffix}"
        cv2.imwrite(str(good), pixels)
        data = good.read_bytes()
        middle = len(data) // 2
        holes = data[:middle] + bytes(90) + data[middle + 90 :]
        for name, damaged in (("half", data[:middle]), ("hole", holes), ("cut", data[:-1])):
            path = source / f"{name}.{suffix}"
            path.write_bytes(damaged)
            clips.add(sound, path, reason)
        clips.add(sound, good)
    for suffix in ("bmp", "webp", "gif"):
        cv2.imwrite(str(source / f"other.{suffix}"), pixels)
        clips.add(sound, source / f"other.{suffix}", "is neither a JPEG nor a PNG image")
    clips.prepare(avsnn)
