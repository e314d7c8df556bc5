"""The processes that work: who reaches them, how many there are, and what happens if they die."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from avsnn.errors import RunError
from avsnn.pipeline.engine.dask_executor import FIRST_WORKERS, workers_that_pay
from avsnn.pipeline.engine.executor import open_worker_pools, tasks_in_flight
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.engine.run_stage import run_stage
from tests.counted_stage import Counted


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


# Dask looks so often whether the process of a worker has started, in s. It gives up a worker that
# dies before the look.
@pytest.mark.parametrize("look_s", [0.05, 0.3])
def test_a_unit_that_kills_its_workers_is_named_and_costs_no_other_unit(
    look_s: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("distributed.nanny.WorkerProcess._init_msg_interval", look_s)
    stage = Counted(tmp_path / "out", tmp_path / "state", count=4, kills={1: [0]})
    with (
        open_worker_pools(1) as pools,
        pytest.raises(RunError, match=r"1 of 4 units .*first: unit-1: 2 worker processes in a row"),
    ):
        run_stage(stage, executor=pools.processes, progress=NoProgress())
    assert {path.stem for path in stage.folder.iterdir()} == {"0", "2", "3"}


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
