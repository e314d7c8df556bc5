"""Where units run: threads of this process, or worker processes on local Dask."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache

# Many small files are fetched at once even on two cores: waiting for a server costs no core.
CONNECTIONS = 8


class Workers:
    """Starts executors when first asked for, so that a run with nothing to do starts none."""

    def __init__(self, stack: ExitStack, processes: int) -> None:
        self._stack = stack
        self._processes = processes
        self.threads = cache(self._start_threads)
        self.processes = cache(self._start_processes)

    def _start_threads(self) -> Executor:
        pool = ThreadPoolExecutor(CONNECTIONS)
        self._stack.callback(pool.shutdown, cancel_futures=True)
        return pool

    def _start_processes(self) -> Executor:
        if self._processes == 0:
            pool = ThreadPoolExecutor(1)
            self._stack.callback(pool.shutdown, cancel_futures=True)
            return pool
        import dask
        from distributed import Client, LocalCluster

        # Its warnings are about its own workers coming and going, not about the data.
        logging.getLogger("distributed").setLevel(logging.ERROR)
        # A worker decodes in a child process of its own, which Dask's default forbids.
        self._stack.enter_context(
            dask.config.set(
                {
                    "distributed.worker.daemon": False,
                    "distributed.scheduler.allowed-failures": 3,
                    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "error",
                }
            )
        )
        with _deaf_to_interrupts():
            cluster = LocalCluster(
                n_workers=self._processes,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                memory_limit=0,
            )
        self._stack.enter_context(cluster)
        client = self._stack.enter_context(Client(cluster))
        executor: Executor = client.get_executor(pure=False)
        return executor


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
def start_workers(processes: int | None) -> Iterator[Workers]:
    """Workers for the stages of one run; ``None`` takes one process per core, 0 none at all."""
    with ExitStack() as stack:
        yield Workers(stack, os.cpu_count() or 1 if processes is None else processes)
