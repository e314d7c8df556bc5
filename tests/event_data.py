"""Writes a small prepared data set of event frames, as ``avsnn prepare`` leaves one."""

from pathlib import Path

import numpy as np
import zarr

from avsnn.datasets_manifest import load
from avsnn.pipeline.formats.cache_layout import create_row_array, create_small_array
from avsnn.pipeline.formats.clip_index import IndexRow, SizedRow, write_index
from avsnn.pipeline.formats.membership import hash_rank
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.prepared_json import LAYOUT, Prepared

# Parts of the clips, in turns.
PARTS = ("train", "train", "train", "train", "val", "test")


def write_event_data(
    root: Path,
    *,
    dataset: str = "demo",
    clips: int = 72,
    frames: tuple[int, ...] = (4, 2, 28, 28),
    audio: tuple[int, ...] = (4, 1, 8, 8),
) -> Path:
    """Write event frames under the name of a data set, and return the root.

    The clips of a class have their events in a corner of their own and in channels of their own,
    so a network can learn the classes.

    Args:
        root: the folder of the data sets; made here.
        dataset: name of the data set, whose classes and splits the clips have.
        clips: number of clips.
        frames: shape of the event frames of a clip, ``(T, 2, H, W)``.
        audio: shape of the event frames of a cochlea, ``(T, 1, h, w)``.
    """
    manifest, folder = load(dataset), root / dataset
    keys = [f"clip-{number:03d}" for number in range(clips)]
    labels = np.arange(clips) % len(manifest.classes)
    rng = np.random.default_rng(0)
    for name, shape in (("frames", frames), ("audio", audio)):
        rows = rng.poisson(0.1, (clips, *shape)).astype(np.uint8)
        for row, label in zip(rows, labels, strict=True):
            place = row.reshape(shape[0], -1)
            width = place.shape[1] // len(manifest.classes)
            place[:, label * width : (label + 1) * width] += 3
        write_cache(folder / "cache" / name, name, rows, keys, labels)
    (folder / "index").mkdir()
    rows = []
    for number, (key, label) in enumerate(zip(keys, labels, strict=True)):
        part = PARTS[number // len(manifest.classes) % len(PARTS)]
        row = IndexRow(
            key=key,
            label=int(label),
            label_name=manifest.classes[label],
            group=key,
            part=part,
            splits=dict.fromkeys(manifest.splits, part),
            audio=f"{key}.a",
            visual=f"{key}.v",
            sha256={},
        )
        rows.append(SizedRow(row, 0))
    rows.sort(key=lambda sized: hash_rank(sized.row.key))
    write_index(folder / "index", rows, classes=manifest.classes, splits=manifest.splits)
    prepared = Prepared(
        dataset=dataset,
        settings=PrepareSettings(),
        fingerprint=f"{frames}{audio}",
        shards="shards",
        frames="cache/frames",
        audio="cache/audio",
        index="index",
        clips=clips,
        failed=0,
        bytes=0,
        layout=LAYOUT,
    )
    (folder / "prepared.json").write_text(prepared.as_text())
    return root


def write_cache(
    folder: Path,
    name: str,
    rows: np.ndarray,
    keys: list[str],
    labels: np.ndarray,
    rows_per_shard: int = 64,
) -> None:
    """Write a cache of one row per clip.

    Args:
        folder: the folder of the cache.
        name: name of the large array.
        rows: the content of the large array.
        keys: key of each clip.
        labels: class of each clip.
        rows_per_shard: number of rows in each file of the large array.
    """
    group = zarr.open_group(str(folder), mode="w")
    array = create_row_array(
        group,
        name,
        rows=len(rows),
        rows_per_shard=rows_per_shard,
        row_shape=rows.shape[1:],
        dtype=rows.dtype.name,
    )
    array[:] = rows
    create_small_array(group, "key", np.array(keys))
    create_small_array(group, "label", labels.astype(np.int64))
    spans = np.stack([np.arange(len(rows)), np.ones(len(rows), np.int64)], axis=1)
    create_small_array(group, "rows", spans)
