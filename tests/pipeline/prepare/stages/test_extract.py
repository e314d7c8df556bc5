import json
from pathlib import Path

import numpy as np
import webdataset

from avsnn.pipeline.formats.clip_index import open_index
from avsnn.pipeline.formats.membership import hash_order, key_hashes
from avsnn.pipeline.formats.prepare_settings import ExtractSettings
from avsnn.pipeline.formats.shard_columns import read_shard_index
from avsnn.pipeline.formats.shards import read_member
from avsnn.pipeline.media import audio
from avsnn.pipeline.media.image import decode_image
from avsnn.pipeline.prepare.stages.extract import divide_into_shards


def shards_of(root: Path) -> list[Path]:
    return sorted((root / "demo" / "shards").glob("*/*.tar"))


def index_of(root: Path) -> Path:
    (folder,) = (root / "demo" / "index").iterdir()
    return folder


def test_plain_webdataset_reads_every_clip_once_from_the_shards(small_demo: Path) -> None:
    urls = [str(path) for path in shards_of(small_demo)]
    read = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    rows = {row.key: row for row in open_index(index_of(small_demo)).rows()}
    assert sorted(sample["__key__"] for sample in read) == sorted(rows)
    for sample in read:
        described = json.loads(sample["json"])
        assert described["label"] == rows[sample["__key__"]].label
        assert Path(sample["__url__"]).name.startswith(described["splits"]["published"])
        assert decode_image(sample["0.jpg"]).shape == (96, 96, 3)
        assert audio.read(sample["flac"]).seconds > 1


def test_the_audio_of_a_shard_holds_the_samples_of_the_recording(small_demo: Path) -> None:
    rows = {row.key: row for row in open_index(index_of(small_demo)).rows()}
    url = str(shards_of(small_demo)[0])
    for sample in webdataset.WebDataset([url], shardshuffle=False, empty_check=False):
        published = small_demo / "demo" / "raw" / rows[sample["__key__"]].audio
        found, expected = audio.read(sample["flac"]), audio.read(published.read_bytes())
        assert found.rate == expected.rate
        assert np.array_equal(found.samples, expected.samples)


def test_the_index_of_a_shard_gives_the_bytes_of_every_member(small_demo: Path) -> None:
    for tar in shards_of(small_demo):
        path = tar.with_suffix(".npz")
        index = read_shard_index(path, path.read_bytes(), digests=False)
        url = webdataset.WebDataset([str(tar)], shardshuffle=False, empty_check=False)
        for row, read in enumerate(url):
            _, sample = index.sample(row)
            assert sample.key == read["__key__"]
            for name, span in sample.members.items():
                assert read_member(tar, span) == read[name]
        assert row == len(index) - 1


def test_a_shard_holds_no_more_than_the_bytes_that_are_allowed() -> None:
    keys = [f"clip-{number}" for number in range(200)]
    hashes = key_hashes(keys)
    hashes = hashes[hash_order(hashes)]
    parts = np.arange(200, dtype=np.uint8) % 3
    sizes = np.arange(200) * 1000
    settings = ExtractSettings(shard_bytes=400_000)
    shards = dict(divide_into_shards(hashes, parts, sizes, settings))
    assert sorted(np.concatenate(list(shards.values()))) == list(range(200))
    assert all(sizes[rows].sum() <= 400_000 for rows in shards.values())
    assert all(len(set(parts[rows])) == 1 for rows in shards.values())
    assert {name.partition("-")[0] for name in shards} == {"train", "val", "test"}
    whole = divide_into_shards(hashes, parts, sizes, ExtractSettings())
    assert [name for name, _ in whole] == ["test-000000", "train-000000", "val-000000"]
