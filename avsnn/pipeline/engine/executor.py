"""Where units run: threads of this process, local Dask processes, or a Dask cluster."""

import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from avsnn.errors import UserError

if TYPE_CHECKING:
    from distributed import Client

# Many small files are fetched at once even on two cores: waiting for a server costs no core.
CONNECTIONS = 8


ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx|inproc)://\S+")


# For a scheduler to answer.
PATIENCE_S = 5


class WorkerPools:
    """Starts executors when first asked for, so that a run with nothing to do starts none."""

    def __init__(self, stack: ExitStack, processes: int, scheduler: str | None) -> None:
        self._stack = stack
        self._processes = processes
        self._scheduler = scheduler
        self.threads = cache(self._start_threads)
        self.processes = cache(self._start_processes)
        if scheduler is not None:
            # An address that is wrong is told before hours of downloads, not after.
            self.processes()

    def _start_threads(self) -> Executor:
        pool = ThreadPoolExecutor(CONNECTIONS)
        self._stack.callback(pool.shutdown, cancel_futures=True)
        return pool

    def _start_processes(self) -> Executor:
        if self._scheduler is not None:
            return self._executor_of(_connect(self._scheduler))
        if self._processes == 0:
            pool = ThreadPoolExecutor(1)
            self._stack.callback(pool.shutdown, cancel_futures=True)
            return pool
        import dask
        from distributed import Client, LocalCluster

        # What it logs is about its own workers coming and going; what goes wrong in a unit reaches
        # us as the unit's exception.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self._stack.enter_context(
            dask.config.set(
                {
                    "distributed.scheduler.allowed-failures": 3,
                    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
                }
            )
        )
        with _deaf_to_interrupts():
            cluster = LocalCluster(
                n_workers=self._processes,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",
                memory_limit=0,
            )
        self._stack.enter_context(cluster)
        return self._executor_of(Client(cluster))

    def _executor_of(self, client: "Client") -> Executor:
        self._stack.enter_context(client)
        executor: Executor = client.get_executor(pure=False)
        return executor


def _connect(scheduler: str) -> "Client":
    """A client of a running cluster whose workers have this very avsnn.

    Raises:
        UserError: nothing answers there, it has no workers, or theirs is another avsnn.
    """
    from distributed import Client

    if not ADDRESS.fullmatch(scheduler):
        raise UserError(f"--scheduler {scheduler} is no address, such as tcp://host:8786.")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(scheduler, timeout=PATIENCE_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({type(error).__name__}); "
            "give the address that it printed when it started, such as tcp://host:8786."
        ) from None
    theirs = client.run(_their_version)
    wrong = {worker: found for worker, found in theirs.items() if found != version("avsnn")}
    if theirs and not wrong:
        return client
    client.close()
    reason = "it has no workers"
    if wrong:
        worker, found = next(iter(wrong.items()))
        reason = f"worker {worker} has avsnn {found}, this is {version('avsnn')}"
    raise UserError(f"--scheduler {scheduler}: {reason}; mend that and run the same command again.")


def _their_version() -> str:
    return version("avsnn")


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Children from here ignore Ctrl-C, which a terminal sends to all; this process ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def open_worker_pools(processes: int | None, scheduler: str | None = None) -> Iterator[WorkerPools]:
    """Open the worker pools for the stages of one run.

    Args:
        processes: on this machine; None takes one per core, 0 none at all.
        scheduler: address of a Dask cluster to use in their place.
    """
    with ExitStack() as stack:
        count = os.cpu_count() or 1 if processes is None else processes
        yield WorkerPools(stack, count, scheduler)
