"""Files laid out and encoded like CREMA-D's, from the source folder to the caches."""

import json
import re
from pathlib import Path

import pytest
import zarr

from avsnn.datasets_manifest.schema import OWN
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.prepare.build import build_stages
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.request import PrepareRequest
from tests.conftest import NoProgress
from tests.defects import DEFECTS
from tests.fake_crema_d import FakeCremaD, make


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeCremaD:
    return make(tmp_path_factory.mktemp("crema-d"), len(DEFECTS) + 20)


@pytest.mark.parametrize("rule", ["1fps", 4])
def test_every_defective_clip_has_its_reason_and_every_good_one_is_in_the_caches(
    fake: FakeCremaD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: int | str
) -> None:
    # With no address to download from: the files are in the source folder.
    fake.write_manifest(tmp_path, generated=True)
    monkeypatch.setenv(OWN, str(tmp_path))
    settings = PrepareSettings.model_validate({"extract": {"frames": rule}})
    request = PrepareRequest(settings=settings, source=fake.folder, max_failures=1.0)
    stages = build_stages("fake-crema-d", request, root=tmp_path)
    summaries = {}
    done = prepare(
        stages,
        workers=0,
        progress=NoProgress(),
        on_stage=lambda summary: summaries.update({summary.stage: summary}),
    )

    counts = {name: (s.written, s.skipped, s.failed) for name, s in summaries.items()}
    assert counts == fake.counts

    rows = map(json.loads, (stages.folder / "failures.jsonl").read_text().splitlines())
    failures = {row["key"]: row for row in rows}
    bad = fake.refused
    assert set(failures) == set(bad)
    for key, expected in bad.items():
        assert failures[key]["stage"] == expected.stage
        assert re.search(expected.reason, failures[key]["reason"]), expected
        assert expected.path in failures[key]["reason"] + failures[key]["path"]

    good = {row["key"] for row in fake.rows} - set(bad)
    for cache in (done.frames, done.audio):
        group = zarr.open_group(stages.folder / cache, mode="r")
        assert set(group["key"][:]) == good
    frames = zarr.open_group(stages.folder / done.frames, mode="r")
    counts_per_clip = set(frames["offsets"][1:] - frames["offsets"][:-1])
    assert counts_per_clip == {4} if rule == 4 else counts_per_clip <= {2, 3, 4, 5}
    assert frames["frames"].shape[1:] == (3, 256, 341)


def test_the_made_up_data_set_is_the_same_for_the_same_seed_and_no_clip_twice(
    fake: FakeCremaD, tmp_path: Path
) -> None:
    again = make(tmp_path / "again", len(fake.rows))
    assert again.rows == fake.rows
    elder, younger = fake.twins
    assert (fake.folder / elder).read_bytes() == (fake.folder / younger).read_bytes()
    videos = [row["visual_sha256"] for row in fake.rows]
    assert len(set(videos)) == len(videos)
    assert make(tmp_path / "other", len(fake.rows), seed=1).rows != fake.rows
