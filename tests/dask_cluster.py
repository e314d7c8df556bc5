"""A real Dask cluster on this machine, of the processes that a person would start."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from distributed import Client

from tests.conftest import PROJECT

COMMAND = [sys.executable, "-m", "dask"]
HERE = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]


class DaskCluster:
    """Processes of a cluster, each of which a test can kill.

    Attributes:
        address: address of the scheduler.
        scheduler: process of the scheduler.
        workers: processes of the workers. A worker without a nanny stays dead when it dies.
    """

    def __init__(self, folder: Path, *, workers: int, nanny: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._nanny = nanny
        self._file = folder / "scheduler.json"
        self.scheduler = self._start(["scheduler", *HERE, "--port", "0"])
        self.workers: list[subprocess.Popen[bytes]] = []
        self.add_workers(workers)
        with Client(scheduler_file=str(self._file), set_as_default=False, timeout=60) as client:
            self.address = client.scheduler.address
            client.wait_for_workers(workers, timeout=60)

    def _start(self, words: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{words[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [*COMMAND, *words, "--scheduler-file", str(self._file)],
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
                stdout=log,
                stderr=log,
                # With a nanny, a worker has processes of its own.
                start_new_session=True,
            )

    def add_workers(self, count: int) -> None:
        """Start more workers of one thread each."""
        words = ["worker", *HERE, "--nthreads", "1", "--nanny" if self._nanny else "--no-nanny"]
        self.workers += [self._start(words) for _ in range(count)]

    def kill(self, *processes: subprocess.Popen[bytes]) -> None:
        """Kill processes with all their children, and wait for their end."""
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def close(self) -> None:
        """Kill all processes."""
        self.kill(*self.workers, self.scheduler)
