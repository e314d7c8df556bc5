"""The processes that work: who reaches them, how many there are, and what happens if they die."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from distributed import Client

from avsnn.errors import RunError
from avsnn.pipeline.engine.dask_executor import FIRST_WORKERS, workers_that_pay
from avsnn.pipeline.engine.executor import open_worker_pools, tasks_in_flight
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.prepare.build_stages import build_as_requested, build_stages
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.settings_overrides import build_settings

SETTINGS = build_settings(PrepareSettings, [{"limit": 72}], ["extract.clips_per_shard=8"])


def listening_hosts() -> set[str]:
    """Return the hosts on which this process and its descendants listen."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        connection.laddr.ip
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_local_workers_listen_on_this_machine_alone_and_are_no_more_than_the_units() -> None:
    with open_worker_pools(3) as pools:
        pids = {pools.processes().submit(os.getpid).result() for _ in range(4)}
        assert len(pids) == 1
        assert listening_hosts() == {"127.0.0.1"}
        futures = [pools.processes().submit(time.sleep, 0.01) for _ in range(6)]
        assert [future.result() for future in futures] == [None] * 6
        assert len({pools.processes().submit(os.getpid).result() for _ in range(30)}) <= 3


def test_few_short_units_start_no_more_workers_than_two() -> None:
    with open_worker_pools(16) as pools:
        executor = pools.processes()
        futures = [executor.submit(os.getpid) for _ in range(40)]
        pids = set()
        for ended, future in enumerate(futures):
            tasks_in_flight(executor, left=40 - ended)
            pids.add(future.result())
        assert len(pids) <= FIRST_WORKERS


@pytest.mark.parametrize(
    ("ended", "left", "seconds", "least", "most"),
    [
        # The demo: two workers do 6 units of about one second.
        (0, 6, 1, 0, 2),
        (2, 4, 1.5, 0, 2),
        # CREMA-D: 80 units of about 5 s.
        (0, 80, 1, 8, 16),
        # Units of a minute: workers start before the first unit ends.
        (0, 10, 5, 4, 10),
        (0, 10, 12, 10, 40),
        # The last units need no more workers.
        (78, 2, 180, 0, 2),
    ],
)
def test_more_workers_start_only_if_they_work_longer_than_they_start(
    ended: int, left: int, seconds: float, least: int, most: int
) -> None:
    found = workers_that_pay(2, ended=ended, left=left, seconds=seconds, start_s=1.5)
    assert least <= found <= most
    # On a machine that is busy, everything takes longer, also the start of a worker.
    busy = workers_that_pay(2, ended=ended, left=left, seconds=10 * seconds, start_s=15)
    assert busy == found


def test_the_number_of_workers_follows_the_cores_that_may_be_used() -> None:
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        "from avsnn.pipeline.engine.children import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


class Loses(NoProgress):
    """Kills the workers or the scheduler of a cluster when the first shard is done."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids
        self.stage = ""
        self.began = 0.0

    def start(self, title: str, total: int, unit: str) -> None:
        self.stage = title

    def advance(self, count: int = 1, note: str = "") -> None:
        if self.stage == "extract" and not self.began:
            self.began = time.monotonic()
            for pid in self.pids:
                os.kill(pid, signal.SIGKILL)


def free_scheduler(folder: Path, workers: int) -> tuple[list[subprocess.Popen[bytes]], str]:
    """Start a scheduler and workers without nannies, which would start dead workers again."""
    file = folder / "scheduler.json"
    words = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options = ["--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file)]
    processes = [subprocess.Popen([*words, *options], **silent)]
    words = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1"]
    options = ["--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file)]
    processes += [
        subprocess.Popen([*words, *options], cwd=folder, **silent) for _ in range(workers)
    ]
    with Client(scheduler_file=str(file), set_as_default=False, timeout=60) as client:
        client.wait_for_workers(workers, timeout=60)
        return processes, client.scheduler.address


@pytest.mark.long
@pytest.mark.parametrize(
    ("lost", "reason"), [("workers", "all workers are gone"), ("scheduler", "scheduler is gone")]
)
def test_a_cluster_that_is_lost_ends_the_command_and_keeps_what_is_done(
    tmp_path: Path, lost: str, reason: str
) -> None:
    processes, address = free_scheduler(tmp_path, workers=1)
    try:
        pids = [process.pid for process in processes]
        progress = Loses(pids[:1] if lost == "scheduler" else pids[1:])
        stages = build_stages("demo", PrepareRequest(settings=SETTINGS), root=tmp_path / "data")
        with pytest.raises(RunError, match=f"{address}: .*{reason}"):
            prepare(stages, workers=None, scheduler=address, progress=progress)
        assert time.monotonic() - progress.began < 25
    finally:
        for process in processes:
            process.kill()
            process.wait()
    stages = build_as_requested("demo", root=stages.folder.parent)
    assert len(stages.extract.journal.read_text().splitlines()) >= 1
    prepared = prepare(stages, workers=0, progress=NoProgress())
    assert prepared.clips == 72


FOREIGN = ("struct", "socket", "pickle", "selectors", "json", "multiprocessing", "zarr", "numpy")


@pytest.mark.parametrize(
    "words",
    [
        (
            "prepare",
            "demo",
            "--limit",
            "12",
            "--workers",
            "1",
            "--set",
            "extract.clips_per_shard=6",
        ),
        ("train", "demo", "--workers", "1", "--set", "epochs=1", "--set", "batch_size=8"),
    ],
)
def test_children_never_execute_a_module_of_the_current_folder(
    avsnn_path: str, small_demo: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    if words[0] == "train":
        shutil.copytree(small_demo, tmp_path / "data")
        words = (*words, "--set", "model.channels=16")
    for name in FOREIGN:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a')\n")
    done = subprocess.run(
        [avsnn_path, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert not (tmp_path / "executed").exists()
    assert done.returncode == 0, done.stderr
