"""Prepares the demo on a real Dask cluster, and with shards and caches behind a URL."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from distributed import Client, LocalCluster
from upath import UPath

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import locate
from avsnn.pipeline.engine.executor import open_worker_pools
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.loading.cache_source import CacheSource
from avsnn.pipeline.prepare.build_stages import DatasetStages, build_as_requested, build_stages
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.repair import repair
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.verify import verify
from avsnn.pipeline.settings_overrides import build_settings
from tests.conftest import Command, hashes

if TYPE_CHECKING:
    from avsnn.pipeline.engine.journal import StageSummary

SETTINGS = build_settings(PrepareSettings, [{"limit": 72}], ["extract.clips_per_shard=8"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster


class KillsAWorker(NoProgress):
    """Kills a worker of a cluster when the first unit of the stage ``extract`` is done."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.stage = ""
        self.killed = 0

    def start(self, title: str, total: int, unit: str) -> None:
        self.stage = title

    def advance(self, count: int = 1, note: str = "") -> None:
        if self.stage == "extract" and not self.killed:
            with Client(self.cluster, set_as_default=False) as client:
                self.killed = min(client.run(os.getpid).values())
            os.kill(self.killed, signal.SIGKILL)


def test_a_cluster_that_loses_a_worker_makes_the_same_bytes(
    cluster: LocalCluster, small_demo: Path, tmp_path: Path
) -> None:
    stages = build_stages("demo", PrepareRequest(settings=SETTINGS), root=tmp_path)
    progress = KillsAWorker(cluster)
    prepared = prepare(stages, workers=None, scheduler=cluster.scheduler_address, progress=progress)
    assert progress.killed
    assert (prepared.clips, prepared.failed) == (72, 0)
    assert hashes(tmp_path / "demo") == hashes(small_demo / "demo")


@pytest.mark.parametrize(
    ("address", "end_of_message"),
    [
        ("tcp://127.0.0.1:9", ": no Dask scheduler answers there"),
        ("nonsense", " is no address, such as tcp://host:8786"),
    ],
)
def test_a_scheduler_that_does_not_answer_ends_the_command_with_one_sentence(
    avsnn: Command, address: str, end_of_message: str
) -> None:
    done = avsnn("prepare", "demo", "--limit", "6", "--scheduler", address)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"avsnn: --scheduler {address}{end_of_message}")


def test_a_cluster_without_workers_is_refused() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        pytest.raises(UserError, match="has no workers"),
        open_worker_pools(None, empty.scheduler_address),
    ):
        pass


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
