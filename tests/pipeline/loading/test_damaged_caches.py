"""Damages the caches and the shards that training reads; one sentence must refuse the damage."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upath import UPath

from avsnn.errors import UserError
from avsnn.pipeline.formats.clip_index import SizedRow, open_index, write_index
from avsnn.pipeline.formats.shard_columns import read_shard_index
from avsnn.pipeline.loading.cache_source import CacheSource
from tests.conftest import ONE_SMALL_EPOCH, Command, flip_a_bit
from tests.pipeline.conftest import cache_paths, prepared_demo
from tests.pipeline.loading.conftest import open_source

ALL_CLIPS = np.arange(72), np.zeros(72)


@pytest.fixture
def root(small_demo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_demo, tmp_path / "data"))


def cut_in_half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def write_rubbish(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{[[[")


def write_a_list(path: Path) -> None:
    path.write_bytes(b"[]")


SMALL_FILES = (
    "frames-*/label/c/0",
    "frames-*/rows/c/0/0",
    "frames-*/key/c/0",
    "audio-*/key/c/0",
    "audio-*/rows/c/0/0",
)
METADATA = ("frames-*/zarr.json", "frames-*/label/zarr.json", "audio-*/audio/zarr.json")


@pytest.mark.parametrize("name", SMALL_FILES)
@pytest.mark.parametrize("damage", [Path.unlink, flip_a_bit, cut_in_half, empty])
def test_a_damaged_small_array_is_refused(
    root: Path, name: str, damage: Callable[[Path], object]
) -> None:
    damage(next((root / "demo" / "cache").glob(name)))
    with pytest.raises(UserError, match=r"is (damaged|missing).*run 'avsnn repair'"):
        open_source(root)


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("damage", [cut_in_half, empty, write_rubbish, write_a_list])
def test_damaged_metadata_of_a_cache_are_refused(
    root: Path, name: str, damage: Callable[[Path], object]
) -> None:
    damage(next((root / "demo" / "cache").glob(name)))
    with pytest.raises(UserError, match=r"is damaged.*run 'avsnn repair'"):
        open_source(root)


def change_metadata(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("frames-*/label", {"codecs": [{"name": "bytes"}, {"name": "pickle"}]}),
        ("frames-*/label", {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]}),
        ("frames-*/label", {"codecs": [{"name": "bytes"}, {"name": "gzip"}]}),
        ("frames-*/label", {"shape": [71]}),
        (
            "frames-*/label",
            {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}},
        ),
        ("frames-*/label", {"data_type": "float64"}),
        ("frames-*/frames", {"shape": [10, 3, 96, 96]}),
        ("frames-*/frames", {"data_type": "int8"}),
        ("audio-*/audio", {"shape": [71, 1, 128, 128]}),
        ("audio-*/audio", {"codecs": [{"name": "bytes"}, {"name": "pickle"}]}),
    ],
)
def test_metadata_that_prepare_does_not_write_are_refused(
    root: Path, name: str, values: dict[str, Any]
) -> None:
    change_metadata(next((root / "demo" / "cache").glob(name)) / "zarr.json", **values)
    with pytest.raises(UserError, match=r"is damaged.*run 'avsnn repair'"):
        open_source(root)


def test_an_array_of_zarr_2_with_a_pickle_filter_is_refused(root: Path) -> None:
    label = next((root / "demo" / "cache").glob("frames-*/label"))
    shutil.rmtree(label)
    label.mkdir()
    facts = {"zarr_format": 2, "shape": [72], "chunks": [72], "dtype": "|O", "compressor": None}
    rest = {"fill_value": None, "order": "C", "filters": [{"id": "pickle", "protocol": 5}]}
    (label / ".zarray").write_text(json.dumps(facts | rest))
    with pytest.raises(UserError, match=r"is damaged.*run 'avsnn repair'"):
        open_source(root)


def test_a_missing_label_file_ends_train_with_one_sentence(avsnn: Command, root: Path) -> None:
    next((root / "demo" / "cache").glob("frames-*/label/c/0")).unlink()
    done = avsnn("train", "demo", "--root", root, *ONE_SMALL_EPOCH)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert "label/c/0 is missing" in sentence
    assert "run 'avsnn repair'" in sentence


@pytest.fixture
def store(root: Path) -> Iterator[UPath]:
    store = UPath("memory:///test-damaged")
    store.fs.put(str(root / "demo" / "cache"), store.path, recursive=True)
    yield store
    store.fs.rm(store.path, recursive=True)


@pytest.mark.parametrize("name", ["frames-*/label/c/0", "frames-*/frames/c/0/0/0/0"])
def test_a_missing_chunk_in_a_store_is_refused(root: Path, store: UPath, name: str) -> None:
    frames, audio = (store / path.name for path in cache_paths(root))
    CacheSource(frames=frames, audio=audio)
    (frames / name.partition("/")[2]).unlink()
    with pytest.raises(UserError, match=r"is missing.*run 'avsnn repair'"):
        CacheSource(frames=frames, audio=audio).read(np.arange(72), np.zeros(72))


SHARD_INDEX, SHARD = "*/train-008192.npz", "*/train-008192.tar"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((SHARD_INDEX, damage) for damage in (cut_in_half, empty, write_rubbish, write_a_list)),
        *((SHARD, damage) for damage in (cut_in_half, empty, Path.unlink)),
    ],
)
def test_a_damaged_shard_is_refused(
    root: Path, name: str, damage: Callable[[Path], object]
) -> None:
    damage(next((root / "demo" / "shards").glob(name)))
    with pytest.raises(UserError, match=r"train-008192\.\w+ is (damaged|missing).*repair"):
        open_source(root, "shards").read(*ALL_CLIPS)


def test_a_shard_whose_members_were_overwritten_is_refused(root: Path) -> None:
    tar = next((root / "demo" / "shards").glob(SHARD))
    tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(UserError, match=r"train-008192\.tar is damaged.*run 'avsnn repair'"):
        open_source(root, "shards").read(*ALL_CLIPS)


@pytest.mark.parametrize("member", ["0.jpg", "flac"])
def test_a_flipped_bit_of_a_frame_or_a_sound_is_refused(root: Path, member: str) -> None:
    tar = next((root / "demo" / "shards").glob(SHARD))
    path = tar.with_suffix(".npz")
    index = read_shard_index(path, path.read_bytes(), digests=False)
    data = bytearray(tar.read_bytes())
    offset, size, _ = index.sample(0)[1].members[member]
    data[offset + size - 100] ^= 1
    tar.write_bytes(data)
    with pytest.raises(UserError, match=r"train-008192\.tar is damaged.*run 'avsnn repair'"):
        open_source(root, "shards").read(*ALL_CLIPS)


@pytest.mark.parametrize("damage", [cut_in_half, write_rubbish, write_a_list])
def test_a_damaged_index_is_refused(root: Path, damage: Callable[[Path], object]) -> None:
    (index,) = (root / "demo").glob("index/*/clips.jsonl")
    damage(index)
    with pytest.raises(UserError, match=r"clips\.jsonl is damaged.*run 'avsnn repair'"):
        list(open_index(index.parent).rows())


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_an_index_without_a_clip_of_the_cache_is_refused(
    avsnn: Command, root: Path, small_run: Path, tmp_path: Path, command: str
) -> None:
    index = open_index(root / "demo" / prepared_demo(root).index)
    rows = [SizedRow(row, 0) for row in index.rows()][1:]
    write_index(index.folder, rows, classes=index.label_names, splits=index.parts)
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    words = ("train", "demo", *ONE_SMALL_EPOCH) if command == "train" else ("evaluate", run)
    done = avsnn(*words, "--root", root)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert "clips.jsonl" in sentence or "than this run was trained on" in sentence
    assert "run 'avsnn prepare demo" in sentence


def test_a_shard_that_lost_its_index_is_missed(avsnn: Command, root: Path) -> None:
    """Such a shard would otherwise be left out of the training in silence."""
    next((root / "demo" / "shards").glob(SHARD_INDEX)).unlink()
    done = avsnn("train", "demo", "--root", root, *ONE_SMALL_EPOCH, "--read", "shards")
    assert done.returncode == 2
    assert re.search(r"it holds 6\d clips, 72 were written", done.stderr)
