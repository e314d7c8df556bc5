"""A clip whose image is far smaller than the other images, from the source folder to training."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr

from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.prepared_json import Prepared
from avsnn.pipeline.loading.shard_source import ShardSource
from avsnn.pipeline.prepare.build_stages import build_stages
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.request import PrepareRequest
from tests.conftest import write_city_sounds

SMALL = "1800-8-0-0"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_far_smaller_than_the_others_is_refused_and_the_others_keep_their_size(
    tmp_path: Path, workers: int
) -> None:
    source = write_city_sounds(tmp_path / "source", recordings=2, slices=1)
    cv2.imwrite(
        str(source / "Dataset_v3_vision" / "siren" / f"{SMALL}.jpg"), np.zeros((1, 1, 3), np.uint8)
    )
    folder, prepared, counts = run_prepare(tmp_path, source, workers)
    assert counts["extract"] == (20, 0, 0)
    assert counts["frames"] == (19, 0, 1)
    assert counts["audio"] == (19, 1, 0)
    assert prepared.clips == 19
    (failure,) = map(json.loads, (folder / "failures.jsonl").read_text().splitlines())
    assert (failure["stage"], failure["key"]) == ("frames", SMALL)
    assert failure["reason"].startswith("frames of 1 x 1 px are too small: the median")

    frames, sounds = (
        zarr.open_group(folder / name, mode="r") for name in (prepared.frames, prepared.audio)
    )
    assert frames["frames"].shape == (19, 3, 40, 60)
    assert list(frames["key"][:]) == list(sounds["key"][:])
    assert SMALL not in frames["key"][:]
    shards = ShardSource(
        shards=folder / prepared.shards,
        settings=prepared.settings,
    )
    assert list(shards.keys) == list(frames["key"][:])
    assert run_prepare(tmp_path, source, workers)[1] == prepared


def run_prepare(
    root: Path, source: Path, workers: int
) -> tuple[Path, Prepared, dict[str, tuple[int, int, int]]]:
    """Prepare the data set; return its folder, the result and written, skipped, failed counts."""
    request = PrepareRequest(settings=PrepareSettings(), source=source, max_failures=1.0)
    stages = build_stages("urbansound8k-av", request, root=root)
    counts = {}
    prepared = prepare(
        stages,
        workers=workers,
        progress=NoProgress(),
        on_stage=lambda s: counts.update({s.stage: (s.written, s.skipped, s.failed)}),
    )
    return stages.folder, prepared, counts
