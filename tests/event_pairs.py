"""A made-up N-MNIST + SHD of 200 clips in the true layout, and its manifest for any servers."""

import gzip
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from avsnn.datasets_manifest import load

# Number of utterances of each of the 20 labels of SHD, by part.
UTTERANCES = {"train": 8, "test": 2}


def published_files(seed: int = 0) -> dict[str, bytes]:
    """Return the four published files: two zips of pictures, a zip and a gzip of an HDF5 file."""
    rng = np.random.default_rng(seed)
    files = {f"{part.title()}.zip": _nmnist_zip(rng, part) for part in UTTERANCES}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("shd_train.h5", _shd(rng, "train"))
    files["shd_train.h5.zip"] = packed.getvalue()
    files["shd_test.h5.gz"] = gzip.compress(_shd(rng, "test"), mtime=0)
    return files


def write_manifest(folder: Path, files: dict[str, bytes], sources: list[dict[str, Any]]) -> None:
    """Write ``nmnist-shd.yaml`` with the checksums of the made-up files, and with other sources."""
    facts = load("nmnist-shd").model_dump(mode="json", exclude_defaults=True)
    for file in (*facts["pairs"]["visual"]["files"], *facts["pairs"]["audio"]["files"]):
        if file["path"] == "shd_test.h5":
            file["packed_as"] = "shd_test.h5.gz"
        content = files[file.get("packed_as", file["path"])]
        file["md5"] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    facts["sources"] = sources
    (folder / "nmnist-shd.yaml").write_text(yaml.safe_dump(facts))


def _nmnist_zip(rng: np.random.Generator, part: str) -> bytes:
    """Return a zip of 16 or 4 pictures of each digit; a digit fires at a place of its own."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for digit in range(10):
            for number in range(2 * UTTERANCES[part]):
                count = 300
                x = rng.integers(0, 8, count) + 5 + 8 * (digit % 3)
                y = rng.integers(0, 8, count) + 2 + 7 * (digit // 3)
                t = np.sort(rng.integers(0, 300_000, count))
                p = rng.integers(0, 2, count)
                records = np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], axis=1)
                name = f"{part.title()}/{digit}/{number:05d}.bin"
                archive.writestr(name, records.astype(np.uint8).tobytes())
    return packed.getvalue()


def _shd(rng: np.random.Generator, part: str) -> bytes:
    """Return an HDF5 file in which each digit fires in channels of its own."""
    labels = rng.permutation(np.repeat(np.arange(20), UTTERANCES[part]))
    speakers = np.resize((4, 5) if part == "test" else (0, 1, 2, 3), len(labels))
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        times = file.create_dataset(
            "spikes/times", (len(labels),), h5py.vlen_dtype(np.dtype("float16"))
        )
        units = file.create_dataset(
            "spikes/units", (len(labels),), h5py.vlen_dtype(np.dtype("uint16"))
        )
        for number, label in enumerate(labels):
            count = 400
            times[number] = np.sort(rng.uniform(0, 1, count)).astype(np.float16)
            units[number] = (rng.integers(0, 60, count) + 70 * (label % 10)).astype(np.uint16)
        file["labels"] = labels
        file["extra/speaker"] = speakers
        file["extra/keys"] = np.array([b"zero"] * 20)
    return memory.getvalue()
