"""The places where units run: threads of this process, local Dask processes, or a Dask cluster."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from avsnn.pipeline.engine.children import usable_cores
from avsnn.pipeline.engine.dask_clusters import connect_to, start_local_cluster
from avsnn.pipeline.engine.dask_executor import TASKS_PER_WORKER, DaskExecutor
from avsnn.pipeline.engine.progress import CourseOfWork

if TYPE_CHECKING:
    from distributed import Client

    from avsnn.pipeline.engine.stage import Stage

# Number of files that are fetched at the same time, also on a machine with two cores: a thread
# that waits for a server needs no core.
CONNECTIONS = 8


def tasks_in_flight(executor: Executor, left: int) -> int:
    """Return how many tasks should be submitted and not ended, so that every worker has work.

    More local worker processes start if the tasks that are left pay for the start.

    Args:
        executor: what runs the tasks.
        left: number of tasks that have not ended, whether or not they are submitted.
    """
    if isinstance(executor, DaskExecutor):
        return executor.tasks_in_flight(left)
    return TASKS_PER_WORKER * CONNECTIONS


def require_workers(executor: Executor) -> None:
    """Do nothing if the workers can still run tasks; to be called while no task ends.

    Raises:
        RunError: the workers are gone, or cannot start.
    """
    if isinstance(executor, DaskExecutor):
        executor.require_workers()


@contextmanager
def open_worker_pools(
    processes: int | None,
    scheduler: str | None = None,
    *,
    shared: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator["WorkerPools"]:
    """Open the worker pools for the stages of one run.

    Args:
        processes: number of processes on this machine; None takes one per usable core, 0 takes a
            thread of this process instead.
        scheduler: address of a Dask cluster that works instead of local processes.
        shared: a file that all workers of the cluster must see.
        say: told the address of the page on which Dask shows its work.

    Raises:
        UserError: the cluster does not answer, has no workers, has another version of avsnn, or
            does not see the shared file.
    """
    with ExitStack() as stack:
        count = usable_cores() if processes is None else processes
        yield WorkerPools(stack, count, scheduler, shared, say)


class WorkerPools:
    """The executors of one run. Each starts when first asked for; an idle run starts none.

    Attributes:
        threads: returns the executor for units that wait for servers and disks.
        processes: returns the executor for units that compute.
    """

    def __init__(
        self,
        stack: ExitStack,
        processes: int,
        scheduler: str | None,
        shared: Path | None,
        say: Callable[[str], None],
    ) -> None:
        self._stack = stack
        self._process_count = processes
        self._scheduler = scheduler
        self._shared = shared
        self._say = say
        self.threads = cache(self._start_threads)
        self.processes = cache(self._start_processes)
        if scheduler is not None:
            # A user learns of a wrong address before hours of downloads, not after them.
            self.processes()

    def executor_of(self, stage: "Stage") -> Callable[[], Executor]:
        """Return what starts the executor for the units of a stage."""
        if stage.decodes or (self._scheduler is not None and stage.runs_on_cluster):
            return self.processes
        return self.threads

    def _start_threads(self) -> Executor:
        return self._start_thread_pool(CONNECTIONS)

    def _start_processes(self) -> Executor:
        if self._scheduler is not None:
            client = self._stack.enter_context(connect_to(self._scheduler, self._shared))
            self._say_dashboard(client)
            return DaskExecutor(client, self._scheduler)
        if self._process_count == 0:
            return self._start_thread_pool(1)
        from distributed import Client

        cluster = self._stack.enter_context(start_local_cluster())
        client = self._stack.enter_context(Client(cluster, set_as_default=False))
        # Without this package, the page of Dask only says that the package is missing.
        if find_spec("bokeh"):
            self._say_dashboard(client)
        return DaskExecutor(client, cluster.scheduler_address, cluster, self._process_count)

    def _say_dashboard(self, client: "Client") -> None:
        # A user can give Dask another form of the address, which may need unknown variables.
        with suppress(KeyError):
            self._say(CourseOfWork(f"the work of the workers is shown at {client.dashboard_link}"))

    def _start_thread_pool(self, threads: int) -> Executor:
        pool = ThreadPoolExecutor(threads)
        self._stack.callback(pool.shutdown, cancel_futures=True)
        return pool
