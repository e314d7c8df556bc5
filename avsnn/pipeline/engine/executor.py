"""The places where units run: threads of this process, local Dask processes, or a Dask cluster."""

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

# Number of files that are fetched at the same time, also on a machine with two cores: a thread
# that waits for a server needs no core.
CONNECTIONS = 8

# The form of an address that a Dask scheduler prints.
SCHEDULER_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx|inproc)://\S+")

# How long a scheduler may take to answer, in s.
SCHEDULER_TIMEOUT_S = 5


@contextmanager
def open_worker_pools(
    processes: int | None, scheduler: str | None = None
) -> Iterator["WorkerPools"]:
    """Open the worker pools for the stages of one run.

    Args:
        processes: number of processes on this machine; None takes one per core, 0 takes a thread
            of this process instead.
        scheduler: address of a Dask cluster that works instead of local processes.

    Raises:
        UserError: the cluster does not answer, has no workers, or has another version of avsnn.
    """
    with ExitStack() as stack:
        count = os.cpu_count() or 1 if processes is None else processes
        yield WorkerPools(stack, count, scheduler)


class WorkerPools:
    """The executors of one run. Each starts when first asked for; an idle run starts none.

    Attributes:
        threads: returns the executor for units that wait for servers and disks.
        processes: returns the executor for units that compute.
    """

    def __init__(self, stack: ExitStack, processes: int, scheduler: str | None) -> None:
        self._stack = stack
        self._process_count = processes
        self._scheduler = scheduler
        self.threads = cache(self._start_threads)
        self.processes = cache(self._start_processes)
        if scheduler is not None:
            # A user learns of a wrong address before hours of downloads, not after them.
            self.processes()

    def _start_threads(self) -> Executor:
        return self._start_thread_pool(CONNECTIONS)

    def _start_processes(self) -> Executor:
        if self._scheduler is not None:
            return self._executor_of(_connect(self._scheduler))
        if self._process_count == 0:
            return self._start_thread_pool(1)
        import dask
        from distributed import Client, LocalCluster

        # Dask logs how its own workers come and go; an error inside a unit reaches this process as
        # the exception of the unit.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self._stack.enter_context(
            dask.config.set(
                {
                    "distributed.scheduler.allowed-failures": 3,
                    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
                }
            )
        )
        with _children_ignore_interrupts():
            cluster = LocalCluster(
                n_workers=self._process_count,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",
                memory_limit=0,
            )
        self._stack.enter_context(cluster)
        return self._executor_of(Client(cluster))

    def _start_thread_pool(self, threads: int) -> Executor:
        pool = ThreadPoolExecutor(threads)
        self._stack.callback(pool.shutdown, cancel_futures=True)
        return pool

    def _executor_of(self, client: "Client") -> Executor:
        self._stack.enter_context(client)
        executor: Executor = client.get_executor(pure=False)
        return executor


def _connect(scheduler: str) -> "Client":
    """Return a client of a running cluster whose workers have the same version of avsnn.

    Raises:
        UserError: no scheduler answers at the address, the cluster has no workers, or the workers
            have another version of avsnn.
    """
    from distributed import Client

    if not SCHEDULER_ADDRESS.fullmatch(scheduler):
        raise UserError(f"--scheduler {scheduler} is no address, such as tcp://host:8786.")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(scheduler, timeout=SCHEDULER_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({type(error).__name__}); "
            "give the address that it printed when it started, such as tcp://host:8786."
        ) from None
    own_version = version("avsnn")
    # Not a function of avsnn: a worker with another avsnn may not have the function's module.
    versions = client.run(version, "avsnn")
    wrong = {worker: found for worker, found in versions.items() if found != own_version}
    if versions and not wrong:
        return client
    client.close()
    reason = "the cluster has no workers"
    if wrong:
        worker, found = next(iter(wrong.items()))
        reason = f"worker {worker} has avsnn {found}, this machine has {own_version}"
    raise UserError(
        f"--scheduler {scheduler}: {reason}; correct this and run the same command again."
    )


@contextmanager
def _children_ignore_interrupts() -> Iterator[None]:
    """Make processes that start inside this context ignore Ctrl-C.

    A terminal sends Ctrl-C to all processes; this process ends its children itself.
    """
    # Python sets signal handlers in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
