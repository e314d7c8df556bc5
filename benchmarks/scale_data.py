"""Makes up a data set of any number of small clips: a YAML, a table, images and sounds.

``python -m benchmarks.scale_data FOLDER --clips 16000`` writes ``FOLDER/datasets/scale.yaml`` and
``scale.csv``, and the files of the clips below ``FOLDER/source``. Then ``AVSNN_DATASETS=FOLDER/
datasets avsnn prepare scale --source FOLDER/source`` prepares the clips. Every clip has a PNG of
about 100 bytes and a WAV of 4.8 kB, and no two files are the same. What a clip is follows from its
number alone, so a larger data set begins with the clips of a smaller data set.
"""

import argparse
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import yaml

from avsnn.datasets_manifest.clips import COLUMNS

NAME = "scale"
CLASSES = 10
#: Number of clips of a speaker.
CLIPS_PER_GROUP = 100
#: Part of a clip, by the last digit of its number divided by the number of classes.
PARTS = ("test", "val", *("train",) * 8)

# Clips are drawn in blocks of this number, because one draw for each clip would take longer than
# the writing of the files.
BLOCK = 4096
CELLS, CELL_PX = 2, 16
SAMPLES, SAMPLE_RATE = 2400, 8000

Row = dict[str, str]


def table_rows(first: int, count: int) -> Iterator[Row]:
    """Yield the rows of the table for ``count`` clips from number ``first`` on."""
    for number in range(first, first + count):
        key = f"clip-{number:08d}"
        yield dict.fromkeys((*COLUMNS, "split"), "") | {
            "key": key,
            "label": str(number % CLASSES),
            "group": f"s{number // CLIPS_PER_GROUP}",
            "audio_path": f"audio/{key}.wav",
            "visual_path": f"image/{key}.png",
            "split": PARTS[number // CLASSES % len(PARTS)],
        }


def write_table(folder: Path, rows: Iterable[Row]) -> None:
    """Write the YAML and the table of the data set."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "name": NAME,
        "title": "Many small clips",
        "description": "made up",
        "homepage": "https://example.org",
        "licence": "none",
        "visual": "image",
        "group": "speaker",
        "classes": [f"class {number}" for number in range(CLASSES)],
        "table": f"{NAME}.csv",
        "sources": [{"prefix": "", "url": "https://example.org/"}],
        "default_split": "published",
        "splits": {
            "published": {"column": "split", "val_fraction": 0.0},
            # Groups that are chosen by shares would move when a clip is added or removed.
            "speakers": {"test_groups": ["s0"], "val_groups": ["s1"]},
        },
    }
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(facts))
    names = (*COLUMNS, "split")
    with (folder / f"{NAME}.csv").open("w", newline="") as file:
        file.write(f"{','.join(names)}\n")
        file.writelines(f"{','.join(row[name] for name in names)}\n" for row in rows)


def write_files(folder: Path, first: int, count: int) -> None:
    """Write the files of ``count`` clips from number ``first`` on."""
    for kind in ("audio", "image"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for block in range(first // BLOCK, -(-(first + count) // BLOCK)):
        rng = np.random.default_rng([0, block])
        pixels = rng.integers(0, 255, (BLOCK, CELLS, CELLS, 3), np.uint8)
        samples = rng.integers(-9000, 9000, (BLOCK, SAMPLES), np.int16)
        for number in range(max(first, block * BLOCK), min(first + count, (block + 1) * BLOCK)):
            key, place = f"clip-{number:08d}", number % BLOCK
            (folder / f"image/{key}.png").write_bytes(png_bytes(pixels[place]))
            (folder / f"audio/{key}.wav").write_bytes(wav_bytes(samples[place]))


def png_bytes(cells: np.ndarray) -> bytes:
    """Return a PNG of 32 x 32 px whose squares of 16 x 16 px have the colours ``[2, 2, 3]``."""
    side = CELLS * CELL_PX
    rows = np.repeat(cells, CELL_PX, axis=1).reshape(CELLS, side * 3)
    # Every row of a PNG begins with the number of its filter; filter 2 takes the row above away,
    # so a row that repeats the row above is all zeros.
    lines = [b"\x00" + row.tobytes() + (b"\x02" + bytes(side * 3)) * (CELL_PX - 1) for row in rows]
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def wav_bytes(samples: np.ndarray) -> bytes:
    """Return a WAV of int16 samples ``[N]``, one channel."""
    data = samples.astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16)
    return b"".join(
        (
            b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE",
            b"fmt " + struct.pack("<I", len(form)) + form,
            b"data" + struct.pack("<I", len(data)) + data,
        )
    )


def main() -> None:
    """Write the data set that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=16000)
    parser.add_argument("--table-only", action="store_true", help="write no images and no sounds")
    args = parser.parse_args()
    began = time.monotonic()
    write_table(args.folder / "datasets", table_rows(0, args.clips))
    if not args.table_only:
        write_files(args.folder / "source", 0, args.clips)
    print(f"{args.clips:,} clips in {args.folder}, {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
