"""A data set of a user, some of whose clips only a reader of the user can read."""

import csv
import tarfile
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import soundfile
import yaml

from tests.own_clips import video_bytes

READER = """
import numpy as np

from avsnn.pipeline.media.readers import READERS, Reader


def frames(path):
    return np.load(path, mmap_mode="r"), 5.0


def sound(path):
    return np.fromfile(path, "<i2"), 8000


READERS[".npy"] = Reader(frames=frames)
READERS[".raw"] = Reader(sound=sound)
"""

# The first clips are arrays; the others are ordinary videos.
ARRAYS, CLIPS = 4, 16
SMALL = ("--set", "extract.clips_per_shard=2")


def write_lab(folder: Path) -> None:
    """Write ``lab.yaml``, ``lab.csv``, the files in ``clips`` and ``my_reader.py``."""
    (folder / "clips").mkdir(parents=True)
    rows = []
    for number in range(CLIPS):
        key, label = f"clip-{number}", ("low", "high")[number % 2]
        files = (f"{key}.raw", f"{key}.npy") if number < ARRAYS else (f"{key}.mp4",) * 2
        rows.append((key, label, key, *files))
        if number < ARRAYS:
            np.save(folder / "clips" / f"{key}.npy", pictures(number))
            samples(number).tofile(folder / "clips" / f"{key}.raw")
        else:
            (folder / "clips" / f"{key}.mp4").write_bytes(video_bytes(8 * number))
    write_table(folder, rows)
    facts = {
        "name": "lab",
        "title": "Lab",
        "description": "Arrays and videos.",
        "licence": "not stated",
        "folder": "clips",
        "visual": "video",
        "classes": ["low", "high"],
        "group": "none",
        "table": "lab.csv",
        "default_split": "default",
        "splits": {"default": {"test_share": 0.25, "val_share": 0.25}},
    }
    (folder / "lab.yaml").write_text(yaml.safe_dump(facts))
    (folder / "my_reader.py").write_text(READER)


def write_table(folder: Path, rows: list[tuple[str, ...]]) -> None:
    with (folder / "lab.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("key", "label", "group", "audio_path", "visual_path"))
        writer.writerows(rows)


def read_table(folder: Path) -> list[tuple[str, ...]]:
    with (folder / "lab.csv").open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def pictures(number: int) -> np.ndarray:
    """Return the frames of a clip: each is of one shade, and the next one is 10 brighter."""
    shades = 40 + 8 * number + 10 * np.arange(10)
    return np.broadcast_to(shades[:, None, None, None], (10, 48, 40, 3)).astype(np.uint8)


def samples(number: int) -> np.ndarray:
    time = np.arange(16000) / 8000
    return (9000 * np.sin(2 * np.pi * (200 + 50 * number) * time)).astype("<i2")


def members(root: Path) -> dict[str, bytes]:
    """Return all members of all shards of the data set, by their name."""
    found = {}
    for path in (root / "shards").rglob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                found[member.name] = file.read() if file else b""
    return found


def shards_of_arrays(root: Path) -> dict[bool, set[str]]:
    """Return the names of the shards by whether they hold a clip that a reader has read."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for path in (root / "shards").rglob("*.tar"):
        with tarfile.open(path) as tar:
            numbers = {int(name.partition(".")[0].rpartition("-")[2]) for name in tar.getnames()}
        found[min(numbers) < ARRAYS].add(path.name)
    return found


def shades(found: dict[str, bytes], number: int) -> list[int]:
    """Return the mean shade of each JPEG image of a clip, in order."""
    names = sorted(n for n in found if n.startswith(f"clip-{number}.") and n.endswith("jpg"))
    images = [cv2.imdecode(np.frombuffer(found[name], np.uint8), 1) for name in names]
    return [round(float(image.mean())) for image in images]


def sound(found: dict[str, bytes], number: int) -> tuple[np.ndarray, int]:
    name = next(n for n in found if n.startswith(f"clip-{number}.") and n.endswith("flac"))
    return soundfile.read(BytesIO(found[name]), dtype="int16")
