import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from avsnn.pipeline import extract
from avsnn.pipeline.extract import ShardIndex, read_member
from avsnn.pipeline.index import read_index
from avsnn.pipeline.media import audio, video
from avsnn.pipeline.prepare import Request, build_stages


def shards_of(root: Path) -> list[Path]:
    return sorted((root / "demo" / "shards").glob("*/*.tar"))


def test_plain_webdataset_reads_every_clip_once_from_the_shards(small_demo: Path) -> None:
    urls = [str(path) for path in shards_of(small_demo)]
    read = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    rows = {row.key: row for row in read_index(small_demo / "demo" / "index")}
    assert sorted(sample["__key__"] for sample in read) == sorted(rows)
    for sample in read:
        described = json.loads(sample["json"])
        assert described["label"] == rows[sample["__key__"]].label
        assert Path(sample["__url__"]).name.startswith(described["splits"]["published"])
        assert video.decode_image(sample["0.jpg"]).shape == (96, 96, 3)
        assert audio.read(sample["flac"]).seconds > 1


def test_audio_in_the_shard_is_the_recording_bit_for_bit(small_demo: Path) -> None:
    rows = {row.key: row for row in read_index(small_demo / "demo" / "index")}
    url = str(shards_of(small_demo)[0])
    for sample in webdataset.WebDataset([url], shardshuffle=False, empty_check=False):
        published = small_demo / "demo" / "raw" / rows[sample["__key__"]].audio
        ours, theirs = audio.read(sample["flac"]), audio.read(published.read_bytes())
        assert ours.rate == theirs.rate
        assert np.array_equal(ours.samples, theirs.samples)


def test_the_index_beside_a_shard_leads_straight_to_any_member(small_demo: Path) -> None:
    for tar in shards_of(small_demo):
        index = ShardIndex.model_validate_json(tar.with_suffix(".json").read_bytes())
        url = webdataset.WebDataset([str(tar)], shardshuffle=False, empty_check=False)
        for sample, read in zip(index.samples, url, strict=True):
            assert sample.key == read["__key__"]
            for name, span in sample.members.items():
                assert read_member(tar, span) == read[name]


def demo_stage(root: Path) -> extract.Extract:
    settings = {"limit": 72, "extract": {"clips_per_shard": 8}}
    request = Request.model_validate({"settings": settings})
    return build_stages("demo", request, root=root).extract


def crash_beside_opencv(*words: Any) -> Any:
    """Runs in the sandbox, which has the real function."""
    if "opencv" in words[-1]:
        os.kill(os.getpid(), signal.SIGSEGV)
    return extract._read_clip(*words)


def crash_always(*words: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_one_decoder_crashes_on_the_other_reads_to_the_same_bytes(
    small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("decord", reason="decord has no build for this machine")
    stage = demo_stage(small_demo)
    unit = stage.units()[0]
    monkeypatch.setattr(extract, "_read_clip", crash_beside_opencv)
    outcome = stage.run(unit, tmp_path)
    assert (outcome.written, outcome.failures) == (8, [])
    for name in unit.outputs:
        assert (tmp_path / name).read_bytes() == (stage.folder / name).read_bytes()


def test_what_every_decoder_crashes_on_is_a_failure_and_the_next_clip_is_read(
    small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = demo_stage(small_demo)
    first, second = stage.units()[:2]
    monkeypatch.setattr(extract, "_read_clip", crash_always)
    outcome = stage.run(first, tmp_path)
    assert (outcome.written, len(outcome.failures)) == (0, 8)
    row = next(iter(first.inputs.values()))
    assert outcome.failures[0].key == row["key"]
    told = f"audio {row['audio']} or video {row['visual']} crashed its decoder (exit code -9)"
    assert outcome.failures[0].reason == told
    monkeypatch.undo()
    assert stage.run(second, tmp_path).written == 8
