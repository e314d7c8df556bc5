"""Shards, and the columns that their indexes give."""

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from avsnn.errors import UserError
from avsnn.pipeline.formats.membership import hash_rank
from avsnn.pipeline.formats.npz import npz_bytes
from avsnn.pipeline.formats.shard_columns import open_shard, open_shards
from avsnn.pipeline.formats.shard_index import IndexArrays, ShardWriter, read_index_arrays
from avsnn.pipeline.formats.shards import Sample, read_member, read_members

KEYS = ("a", "clip-2", "été", "k" * 120, "e")


def write_shards(folder: Path) -> dict[str, dict[str, bytes]]:
    """Write two shards, and return the members of each clip, by key."""
    written: dict[str, dict[str, bytes]] = {}
    ranked = sorted(KEYS, key=hash_rank)
    for part, keys in (("test", ranked[::2]), ("train", ranked[1::2])):
        with ShardWriter(folder / f"{part}-000000.tar") as writer:
            for key in keys:
                number = KEYS.index(key)
                frames = {f"{frame}.jpg": f"{key} {frame}".encode() for frame in range(number % 3)}
                members = {**frames, "flac": key.encode() * 200, "json": b"{}"}
                sample = Sample(
                    key=key,
                    label=number,
                    splits={"published": part, "other": "none"},
                    frames=len(frames),
                    height=30 + number,
                    width=40,
                    audio_seconds=0.25 * number,
                    audio_rate=8000,
                )
                writer.add(sample, hashlib.sha256(key.encode()).hexdigest(), members)
                written[key] = members
        assert writer.digests == {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.glob(f"{part}-*")
        }
    return written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(tmp_path)
    return tmp_path


def test_the_columns_of_all_shards_give_back_every_clip_in_one_order(tmp_path: Path) -> None:
    written = write_shards(tmp_path)
    columns = open_shards(tmp_path)
    assert columns.keys.tolist() == sorted(KEYS, key=hash_rank)
    for row, key in enumerate(columns.keys):
        number, members = KEYS.index(key), written[key]
        shard, sample = columns.sample(row)
        assert shard.name == f"{sample.splits['published']}-000000.tar"
        assert sample.splits["other"] == "none"
        assert (sample.label, sample.frames, sample.height) == (number, number % 3, 30 + number)
        assert (sample.audio_seconds, sample.audio_rate) == (0.25 * number, 8000)
        names = list(sample.members)
        read = read_members([(shard, sample.members[name]) for name in names])
        assert dict(zip(names, read, strict=True)) == members
        for frame in range(sample.frames):
            assert read_member(shard, columns.frame(row, frame)) == members[f"{frame}.jpg"]
        with pytest.raises(UserError, match=rf"{shard.stem}\.npz is damaged"):
            columns.frame(row, sample.frames)


def test_chosen_clips_keep_their_members(folder: Path) -> None:
    columns = open_shards(folder, digests=True)
    chosen = columns.take(np.array([3, 1]))
    assert chosen.keys.tolist() == columns.keys[[3, 1]].tolist()
    assert [chosen.sample(row) for row in (0, 1)] == [columns.sample(row) for row in (3, 1)]
    assert chosen.digests is not None
    sources = [bytes(source) for source in chosen.digests["source"]]
    assert sources == [hashlib.sha256(key.encode()).digest() for key in chosen.keys]


def test_a_folder_without_shards_has_no_clips(tmp_path: Path) -> None:
    assert len(open_shards(tmp_path)) == 0


def test_plain_webdataset_reads_a_shard_and_plain_numpy_its_index(tmp_path: Path) -> None:
    written = write_shards(tmp_path)
    for part in ("test", "train"):
        url = str(tmp_path / f"{part}-000000.tar")
        read = list(webdataset.WebDataset([url], shardshuffle=False, empty_check=False))
        assert {sample["__key__"]: sample["flac"] for sample in read} == {
            key: written[key]["flac"] for key in (sample["__key__"] for sample in read)
        }
        with np.load(tmp_path / f"{part}-000000.npz") as index:
            keys = [key.decode() for key in index["key"]]
            assert keys == [sample["__key__"] for sample in read]
            assert index["clips"]["label"].tolist() == [KEYS.index(key) for key in keys]
            assert index["members"]["size"].sum() == sum(
                len(data) for key in keys for data in written[key].values()
            )


def test_only_a_name_that_needs_it_gets_an_extra_header(folder: Path) -> None:
    """An extra header costs 1 kB, and a small clip has three members."""
    for tar in folder.glob("*.tar"):
        with tarfile.open(tar) as archive:
            for member in archive:
                is_plain = member.name.isascii() and len(member.name) <= 100
                assert member.offset_data - member.offset == (512 if is_plain else 1536)


def test_equal_clips_give_equal_bytes_on_every_machine(folder: Path) -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert {name: digest[:16] for name, digest in found.items()} == {
        "test-000000.npz": "6fc607787c74d3be",
        "test-000000.tar": "bf93f70f18c8ddf5",
        "train-000000.npz": "da4be8b41946b15b",
        "train-000000.tar": "c5e8642002256082",
    }


def set_value(array: str, field: str, value: float) -> Callable[[IndexArrays], IndexArrays]:
    """Return what changes the first value of a field in an array."""

    def change(arrays: IndexArrays) -> IndexArrays:
        changed = getattr(arrays, array).copy()
        (changed[field] if field else changed)[0] = value
        return arrays._replace(**{array: changed})

    return change


FALSE_INDEXES: dict[str, Callable[[IndexArrays], IndexArrays]] = {
    "label": set_value("clips", "label", -1),
    "frames": set_value("clips", "frames", -1),
    "height": set_value("clips", "height", 0),
    "seconds": set_value("clips", "audio_seconds", np.nan),
    "count of members": set_value("clips", "members", 4),
    "negative count": set_value("clips", "members", -3),
    "part": set_value("parts", "", 4),
    "offset": set_value("members", "offset", -512),
    "size": set_value("members", "size", -1),
    "name": set_value("members", "name", 9),
    "negative name": set_value("members", "name", -1),
    "a key that is no UTF-8": set_value("key", "", b"\xff"),  # type: ignore[arg-type]
    "fewer keys": lambda arrays: arrays._replace(key=arrays.key[1:]),
    "fewer splits": lambda arrays: arrays._replace(splits=arrays.splits[1:]),
    "keys that are numbers": lambda arrays: arrays._replace(key=np.arange(len(arrays.key))),
    "fewer digests": lambda arrays: arrays._replace(digests=arrays.digests[1:]),
    "parts of another type": lambda arrays: arrays._replace(parts=arrays.parts.astype("<i8")),
    "sensors of some clips": lambda arrays: arrays._replace(sensors=np.ones((1, 8), "<i8")),
    "a sensor without pixels": lambda arrays: arrays._replace(
        sensors=np.zeros((len(arrays.clips), 8), "<i8")
    ),
    "other records": lambda arrays: arrays._replace(clips=arrays.digests),
}


@pytest.mark.parametrize("change", FALSE_INDEXES.values(), ids=FALSE_INDEXES)
def test_an_index_whose_values_contradict_each_other_is_refused(
    folder: Path, change: Callable[[IndexArrays], IndexArrays]
) -> None:
    path = folder / "train-000000.npz"
    arrays: dict[str, Any] = change(read_index_arrays(path.read_bytes()))._asdict()
    path.write_bytes(npz_bytes(arrays))
    with pytest.raises(UserError, match=r"train-000000\.npz is damaged; run 'avsnn repair'"):
        open_shards(folder)


def test_an_index_that_lost_any_bytes_is_refused(folder: Path) -> None:
    path = folder / "train-000000.npz"
    data = path.read_bytes()
    for end in range(0, len(data), 97):
        path.write_bytes(data[:end])
        with pytest.raises(UserError, match=r"train-000000\.npz is damaged"):
            open_shards(folder)


def test_an_index_that_changed_since_it_was_read_is_not_used(folder: Path) -> None:
    """A unit of a cache carries rows of an index, so the rows must still be the same clips."""
    (first, _) = open_shards(folder).shards
    (folder / "test-000000.npz").write_bytes((folder / "train-000000.npz").read_bytes())
    with pytest.raises(UserError, match=r"test-000000\.npz is damaged \(it holds other bytes"):
        open_shard(first)
