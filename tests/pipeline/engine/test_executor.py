"""Prepares the demo with shards and caches behind a URL."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from upath import UPath

from avsnn.pipeline.engine.atomic_files import locate
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.loading.cache_source import CacheSource
from avsnn.pipeline.prepare.build_stages import DatasetStages, build_as_requested, build_stages
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.repair import repair
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.verify import verify
from avsnn.pipeline.settings_overrides import build_settings
from tests.conftest import Command

if TYPE_CHECKING:
    from avsnn.pipeline.engine.journal import StageSummary

SETTINGS = build_settings(PrepareSettings, [{"limit": 72}], ["extract.clips_per_shard=8"])


def build_stages_in_memory(root: Path) -> DatasetStages:
    request = PrepareRequest(settings=SETTINGS, store=f"memory://{root}")
    return build_stages("demo", request, root=root)


def test_shards_and_caches_behind_a_url_hold_the_same_bytes_and_can_be_read(
    small_demo: Path, tmp_path: Path
) -> None:
    stages = build_stages_in_memory(tmp_path)
    prepared = prepare(stages, workers=0, progress=NoProgress())
    local_paths = [
        p for kind in ("shards", "cache") for p in (small_demo / "demo" / kind).rglob("*.*")
    ]
    assert local_paths
    for path in local_paths:
        remote = UPath(f"memory://{tmp_path}/demo") / str(path.relative_to(small_demo / "demo"))
        assert path.is_dir() or remote.read_bytes() == path.read_bytes()
    source = CacheSource(
        frames=locate(stages.folder, prepared.frames), audio=locate(stages.folder, prepared.audio)
    )
    assert len(source.keys) == 72

    summaries: list[StageSummary] = []
    prepare(stages, workers=0, progress=NoProgress(), on_stage=summaries.append)
    assert [summary.units_done_now for summary in summaries] == [0] * 5


def test_damage_behind_a_url_is_found_and_repaired(tmp_path: Path) -> None:
    stages = build_stages_in_memory(tmp_path)
    prepare(stages, workers=0, progress=NoProgress())
    stages = build_as_requested("demo", root=tmp_path)
    shard = min(stages.extract.folder.glob("*.tar"), key=str)
    undamaged = shard.read_bytes()
    shard.write_bytes(undamaged[:500] + b"!" + undamaged[501:])
    (stages.frames.folder / "zarr.json").unlink()
    verification = verify(stages, progress=NoProgress())
    assert [damage.stage for damage in verification.damages] == ["extract", "frames"]
    repair(
        stages,
        verification,
        delete_unknown=False,
        workers=0,
        progress=NoProgress(),
        on_stage=lambda _: None,
    )
    assert shard.read_bytes() == undamaged
    assert verify(stages, progress=NoProgress()).damages == []


@pytest.mark.parametrize(
    ("store", "part_of_message"), [("/some/folder", "is no URL"), ("nope://bucket", "nope")]
)
def test_an_unusable_store_is_refused_with_one_sentence(
    avsnn: Command, store: str, part_of_message: str
) -> None:
    done = avsnn("prepare", "demo", "--limit", "6", "--store", store)
    assert done.returncode == 2
    assert part_of_message in done.stderr
    assert "Traceback" not in done.stderr
