"""Prepares on a real Dask cluster, whose processes die."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine import dask_clusters
from avsnn.pipeline.engine.executor import open_worker_pools
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.engine.run_stage import run_stage
from avsnn.pipeline.engine.stage import records
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.prepare.build_stages import build_stages
from avsnn.pipeline.prepare.finished_snapshot import finished_before
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.stages.fetch import Fetch
from avsnn.pipeline.settings_overrides import build_settings
from tests.conftest import Command, hashes
from tests.counted_stage import Counted
from tests.dask_cluster import DaskCluster

SETTINGS = build_settings(PrepareSettings, [{"limit": 72}], ["extract.clips_per_shard=8"])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    cluster = DaskCluster(tmp_path / "cluster", workers=2)
    yield cluster
    cluster.close()


class KillsAWorker(NoProgress):
    """Kills a worker of a cluster, and starts another, when some shards are done."""

    def __init__(self, cluster: DaskCluster) -> None:
        self.cluster = cluster
        self.stage = ""
        self.shards = 0

    def start(self, title: str, total: int, unit: str) -> None:
        self.stage = title

    def advance(self, count: int = 1, note: str = "") -> None:
        self.shards += count * (self.stage == "extract")
        if self.stage == "extract" and self.shards == 5:
            self.cluster.kill(self.cluster.workers[0])
            self.cluster.add_workers(1)


def test_a_cluster_that_loses_a_worker_makes_the_same_bytes_and_no_finished_unit_again(
    cluster: DaskCluster, small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = PrepareRequest(settings=SETTINGS, source=small_demo / "demo" / "raw")
    stages = build_stages("demo", request, root=tmp_path)
    # The workers are other processes, in which the stage runs as ever.
    monkeypatch.setattr(Fetch, "run", lambda *_: pytest.fail("this process copied a file"))
    progress, said = KillsAWorker(cluster), []
    prepared = prepare(
        stages, workers=None, scheduler=cluster.address, progress=progress, say=said.append
    )
    assert progress.shards > 5
    assert (prepared.clips, prepared.failed) == (72, 0)
    assert hashes(tmp_path / "demo") == hashes(small_demo / "demo")
    # A unit that runs again after its record was written leaves files that are newer.
    for record in records(stages.extract).values():
        for output in record.outputs:
            assert (stages.extract.folder / output.path).stat().st_mtime_ns == output.mtime_ns
    assert finished_before("demo", request, root=tmp_path)
    (sentence,) = said
    assert "shown at http://127.0.0.1:" in sentence
    assert not (tmp_path / "demo" / "state" / "partial").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("lost", "reason", "when_asked_again"),
    [
        ("workers", "all workers are gone", "the cluster has no workers"),
        ("scheduler", "the scheduler is gone", "no Dask scheduler answers there"),
    ],
)
def test_a_cluster_that_is_lost_during_a_stage_ends_the_command_and_keeps_what_is_done(
    cluster: DaskCluster, tmp_path: Path, lost: str, reason: str, when_asked_again: str
) -> None:
    processes = cluster.workers if lost == "workers" else [cluster.scheduler]
    kills = {12: [process.pid for process in processes]}
    stage = Counted(tmp_path / "out", tmp_path / "state", count=40, kills=kills)
    with (
        open_worker_pools(None, cluster.address) as pools,
        pytest.raises(RunError, match=f"^{cluster.address}: {reason}. What is done is safe: start"),
    ):
        run_stage(stage, executor=pools.processes, progress=NoProgress())
    with (
        pytest.raises(UserError, match=when_asked_again),
        open_worker_pools(None, cluster.address),
    ):
        pass
    recorded = set(records(stage))
    assert recorded
    stage.kills.clear()
    with open_worker_pools(0) as pools:
        run_stage(stage, executor=pools.processes, progress=NoProgress())
    assert len(records(stage)) == 40
    times_run = Counter(stage.runs())
    assert {times_run[name] for name in recorded} == {1}


def test_a_scheduler_that_is_lost_between_two_stages_is_reported_by_the_second(
    cluster: DaskCluster, tmp_path: Path
) -> None:
    first = Counted(tmp_path / "first", tmp_path / "state-1", count=3)
    second = Counted(tmp_path / "second", tmp_path / "state-2", count=3)
    with open_worker_pools(None, cluster.address) as pools:
        run_stage(first, executor=pools.processes, progress=NoProgress())
        cluster.kill(cluster.scheduler)
        with pytest.raises(RunError, match=f"^{cluster.address}: the scheduler is gone. What is"):
            run_stage(second, executor=pools.processes, progress=NoProgress())


def test_a_scheduler_that_is_stopped_is_no_cluster(
    cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_clusters, "SILENT_SCHEDULER_S", 1)
    cluster.scheduler.send_signal(signal.SIGSTOP)
    with (
        pytest.raises(UserError, match="no Dask scheduler answers there"),
        open_worker_pools(None, cluster.address),
    ):
        pass


def test_workers_that_run_elsewhere_find_a_relative_root_or_are_refused(
    cluster: DaskCluster, avsnn: Command, tmp_path: Path
) -> None:
    done = avsnn("prepare", "demo", "--limit", "6", "--scheduler", cluster.address)
    assert done.returncode == 0, done.stderr
    assert "the work of the workers is shown at http://127.0.0.1:" in done.stderr
    assert (tmp_path / "data" / "demo" / "prepared.json").exists()
    assert not (tmp_path / "cluster" / "data").exists()
    with (
        pytest.raises(UserError, match=r"worker tcp://\S+ does not see data/demo/.lock, which"),
        open_worker_pools(None, cluster.address, shared=Path("data/demo/.lock")),
    ):
        pass


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
