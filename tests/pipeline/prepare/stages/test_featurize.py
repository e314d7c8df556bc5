from pathlib import Path

import numpy as np
import pytest
import zarr

from avsnn.pipeline.formats.audio_rows import audio_image
from avsnn.pipeline.formats.prepare_settings import AudioSettings, PrepareSettings
from avsnn.pipeline.formats.shard_columns import open_shards
from avsnn.pipeline.formats.shards import read_member
from avsnn.pipeline.media import audio
from avsnn.pipeline.media.image import decode_image
from avsnn.pipeline.prepare.build_stages import build_stages
from avsnn.pipeline.prepare.prepare import plan_stages
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.settings_overrides import build_settings
from tests.pipeline.conftest import cache_paths


def test_the_caches_hold_the_clips_of_the_shards_in_the_same_order(small_demo: Path) -> None:
    frames, sounds = (zarr.open_group(path, mode="r") for path in cache_paths(small_demo))
    columns = open_shards(next((small_demo / "demo" / "shards").iterdir()))
    found = [columns.sample(row) for row in range(len(columns))]
    keys = [sample.key for _, sample in found]
    assert list(frames["key"][:]) == list(sounds["key"][:]) == keys
    assert list(frames["label"][:]) == [sample.label for _, sample in found]
    spans, sound_spans = frames["rows"][:], sounds["rows"][:]
    assert list(spans[:, 1]) == [sample.frames for _, sample in found]
    for row in (0, len(found) // 2, len(found) - 1):
        shard, sample = found[row]
        last = sample.frames - 1
        pixels = decode_image(read_member(shard, sample.members[f"{last}.jpg"]))
        assert np.array_equal(frames["frames"][spans[row, 0] + last], pixels.transpose(2, 0, 1))
        sound = audio.read(read_member(shard, sample.members["flac"]))
        image = audio_image(sound, AudioSettings())
        assert np.array_equal(sounds["audio"][sound_spans[row, 0]], image)


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ("audio.hop=200", {"audio"}),
        ("audio.kind=log-mel audio.n_mels=64", {"audio"}),
        ("frames.shorter_side=48", {"frames"}),
        ("extract.jpeg_quality=80", {"extract"}),
    ],
)
def test_a_changed_setting_makes_only_the_stage_that_uses_it_stale(
    small_demo: Path, change: str, stale: set[str]
) -> None:
    words = ["extract.clips_per_shard=8", "limit=72", *change.split()]
    stages = build_stages(
        "demo", PrepareRequest(settings=build_settings(PrepareSettings, (), words)), root=small_demo
    )
    planned = plan_stages(stages)
    assert {stage.name for stage, plan in planned if plan.todo_count} == stale
