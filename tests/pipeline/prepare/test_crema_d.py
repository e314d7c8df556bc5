"""Prepares a made-up CREMA-D, with defective clips, from a source folder to the caches."""

import json
import re
from pathlib import Path

import pytest
import zarr

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.prepare.build_stages import build_stages
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.request import PrepareRequest
from tests.defects import DEFECTS
from tests.fake_crema_d import FakeCremaD, make


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeCremaD:
    return make(tmp_path_factory.mktemp("crema-d"), len(DEFECTS) + 20)


@pytest.mark.parametrize("rule", ["1fps", 4])
def test_every_defective_clip_is_recorded_with_its_reason_and_every_good_clip_is_cached(
    fake: FakeCremaD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: int | str
) -> None:
    # A generated data set has no addresses: all files come from the source folder.
    fake.write_manifest(tmp_path, generated=True)
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))
    settings = PrepareSettings.model_validate({"extract": {"frames": rule}})
    request = PrepareRequest(settings=settings, source=fake.folder, max_failures=1.0)
    stages = build_stages("fake-crema-d", request, root=tmp_path)
    summaries = {}
    prepared = prepare(
        stages,
        workers=0,
        progress=NoProgress(),
        on_stage=lambda summary: summaries.update({summary.stage: summary}),
    )

    counts = {name: (s.written, s.skipped, s.failed) for name, s in summaries.items()}
    assert counts == fake.counts

    rows = map(json.loads, (stages.folder / "failures.jsonl").read_text().splitlines())
    failures = {row["key"]: row for row in rows}
    refused = fake.refused
    assert set(failures) == set(refused)
    for key, expected in refused.items():
        assert failures[key]["stage"] == expected.stage
        assert re.search(expected.reason, failures[key]["reason"]), expected
        assert expected.path in failures[key]["reason"] + failures[key]["path"]

    good = {row["key"] for row in fake.rows} - set(refused)
    for cache in (prepared.frames, prepared.audio):
        group = zarr.open_group(stages.folder / cache, mode="r")
        assert set(group["key"][:]) == good
    frames = zarr.open_group(stages.folder / prepared.frames, mode="r")
    counts_per_clip = set(frames["rows"][:, 1])
    assert counts_per_clip == {4} if rule == 4 else counts_per_clip <= {2, 3, 4, 5}
    assert frames["frames"].shape[1:] == (3, 256, 341)


def test_the_made_up_data_set_repeats_for_a_seed_and_has_no_video_twice(
    fake: FakeCremaD, tmp_path: Path
) -> None:
    again = make(tmp_path / "again", len(fake.rows))
    assert again.rows == fake.rows
    first, second = fake.twins
    assert (fake.folder / first).read_bytes() == (fake.folder / second).read_bytes()
    videos = [row["visual_sha256"] for row in fake.rows]
    assert len(set(videos)) == len(videos)
    assert make(tmp_path / "other", len(fake.rows), seed=1).rows != fake.rows
