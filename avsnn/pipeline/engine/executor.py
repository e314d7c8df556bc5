"""The places where units run: threads of this process, local Dask processes, or a Dask cluster."""

import logging
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.children import (
    children_block_signals,
    keep_current_folder_off_children,
    usable_cores,
)

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

# Number of files that are fetched at the same time, also on a machine with two cores: a thread
# that waits for a server needs no core.
CONNECTIONS = 8

# Number of local workers that start at once. More workers start only if they pay for their start.
FIRST_WORKERS = 2

# A worker pays if it works so many times as long as its process took to start. The first imports of
# the worker and the process of its decoders take about as long again.
WORTH = 4

# The form of an address that a Dask scheduler prints.
SCHEDULER_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx|inproc)://\S+")

# How long a scheduler may take to answer, in s.
SCHEDULER_TIMEOUT_S = 5

# How long a cluster may be without any worker, in s, before the command ends. A worker that died
# is started again within a few seconds.
WORKERS_TIMEOUT_S = 10


@contextmanager
def open_worker_pools(
    processes: int | None, scheduler: str | None = None
) -> Iterator["WorkerPools"]:
    """Open the worker pools for the stages of one run.

    Args:
        processes: number of processes on this machine; None takes one per usable core, 0 takes a
            thread of this process instead.
        scheduler: address of a Dask cluster that works instead of local processes.

    Raises:
        UserError: the cluster does not answer, has no workers, or has another version of avsnn.
    """
    with ExitStack() as stack:
        count = usable_cores() if processes is None else processes
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
            client = self._stack.enter_context(_connect(self._scheduler))
            return DaskExecutor(client, self._scheduler)
        if self._process_count == 0:
            return self._start_thread_pool(1)
        import dask
        from distributed import Client, LocalCluster

        # Dask logs how its own workers come and go; an error inside a unit reaches this process as
        # the exception of the unit.
        # tornado and asyncio log the errors of starting workers, which `require_workers` reports.
        for name in ("distributed", "tornado.application", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._stack.enter_context(
            dask.config.set(
                {
                    "distributed.scheduler.allowed-failures": 3,
                    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
                }
            )
        )
        keep_current_folder_off_children()
        with children_block_signals(signal.SIGINT), _processes_start():
            cluster = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                processes=True,
                # Whoever reaches a scheduler can execute code, so no other machine reaches this
                # one. Without a dashboard Dask would still open its HTTP port on all interfaces.
                host="127.0.0.1",
                protocol="tcp",
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                worker_dashboard_address="127.0.0.1:0",
                memory_limit=0,
            )
        self._stack.enter_context(cluster)
        client = self._stack.enter_context(Client(cluster))
        return DaskExecutor(client, cluster.scheduler_address, cluster, self._process_count)

    def _start_thread_pool(self, threads: int) -> Executor:
        pool = ThreadPoolExecutor(threads)
        self._stack.callback(pool.shutdown, cancel_futures=True)
        return pool


class DaskExecutor(Executor):
    """Runs units on the workers of a Dask cluster.

    Args:
        client: a client of the cluster.
        address: address of the scheduler, for messages.
        cluster: the cluster, if this process started the cluster; its workers start as units need
            them, one for each unit at most.
        max_workers: largest number of workers of ``cluster``.
    """

    def __init__(
        self,
        client: "Client",
        address: str,
        cluster: "LocalCluster | None" = None,
        max_workers: int = 0,
    ) -> None:
        self._client = client
        self._address = address
        self._executor: Executor = client.get_executor(pure=False)
        self._cluster = cluster
        self._max_workers = max_workers
        self._workers = 0
        self._running: set[Future[Any]] = set()
        self._submitted = 0
        # The time at which the workers began to work on the units that run.
        self._began = self._last_seen = time.monotonic()
        # How long the process of a worker takes to start, in s; None until one has started.
        self._start_s: float | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on a worker."""
        self._last_seen = time.monotonic()
        if not self._running:
            self._submitted, self._began = 0, self._last_seen
        future = self._executor.submit(fn, *args, **kwargs)
        self._submitted += 1
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        self._start_workers(FIRST_WORKERS)
        return future

    def start_workers_that_pay(self) -> None:
        """Start more workers of a local cluster if each of them will pay for its start."""
        if self._cluster is None:
            return
        seconds, left = time.monotonic() - self._began, len(self._running)
        if self._start_s is None:
            if self._cluster.scheduler_info["workers"]:
                self._start_s, self._began = seconds, time.monotonic()
            return
        ended = self._submitted - left
        self._start_workers(
            workers_that_pay(
                self._workers, ended=ended, left=left, seconds=seconds, start_s=self._start_s
            )
        )

    def _start_workers(self, wanted: int) -> None:
        wanted = min(wanted, self._max_workers, len(self._running))
        if self._cluster is not None and wanted > self._workers:
            self._workers = wanted
            self._cluster.scale(wanted)

    def require_workers(self) -> None:
        """Do nothing if the cluster can still do units.

        Raises:
            RunError: the scheduler is gone, all workers have been gone for 10 s, or no worker
                process can be started on this machine.
        """
        scheduler = self._client.scheduler
        try:
            workers = scheduler and self._client.sync(
                scheduler.ncores, callback_timeout=SCHEDULER_TIMEOUT_S
            )
        except OSError:
            scheduler = None
        if scheduler is None:
            raise self._lost_error("the scheduler is gone")
        if workers:
            self._last_seen = time.monotonic()
        elif self._cluster is not None and self._no_worker_can_start(self._cluster):
            raise _no_processes_error()
        elif self._cluster is None and time.monotonic() - self._last_seen > WORKERS_TIMEOUT_S:
            raise self._lost_error("all workers are gone")

    @staticmethod
    def _no_worker_can_start(cluster: "LocalCluster") -> bool:
        """Return whether a cluster of this process has tried to start workers, and none runs."""
        states = [worker.status.name for worker in cluster.workers.values()]
        return bool(states) and {"failed", "closed"}.issuperset(states)

    def _lost_error(self, reason: str) -> RunError:
        return RunError(
            f"{self._address}: {reason}. What is done is safe: start the cluster and run the same "
            "command again."
        )


def workers_that_pay(workers: int, *, ended: int, left: int, seconds: float, start_s: float) -> int:
    """Return how many workers pay: each works at least ``WORTH`` times as long as its start takes.

    Args:
        workers: number of workers that work so far.
        ended: number of units that have ended.
        left: number of units that have not ended.
        seconds: how long the workers have worked, in s. If no unit has ended, each worker has
            worked so long on its first unit.
        start_s: how long the process of a worker takes to start, in s.
    """
    seconds_left = left * seconds / max(1, ended, workers)
    return max(0, int(workers * (seconds_left / (WORTH * start_s) - 1)))


@contextmanager
def _processes_start() -> Iterator[None]:
    """Turn an error of the machine inside this context into a sentence about worker processes."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError):
        raise _no_processes_error() from None


def _no_processes_error() -> RunError:
    return RunError(
        "worker processes cannot be started here: too few open files, processes or memory are "
        "allowed, or /dev/shm is full or read-only. What is done is safe: raise the limit, or add "
        "--workers 0."
    )


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
