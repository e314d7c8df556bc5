"""Tasks on the workers of a Dask cluster, of this machine or of others."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from avsnn.errors import RunError
from avsnn.pipeline.engine.dask_clusters import (
    SCHEDULER_TIMEOUT_S,
    SILENT_SCHEDULER_S,
    no_processes_error,
)

if TYPE_CHECKING:
    from distributed import Client, LocalCluster
    from distributed import Future as Task

# Number of local workers that start at once. More workers start only if they pay for their start.
FIRST_WORKERS = 2

# A worker pays if it works so many times as long as its process took to start. The first imports of
# the worker and the process of its decoders take about as long again.
WORTH = 4

# Number of tasks for each worker that are submitted and have not ended: one runs, one waits at the
# worker, and one waits at the scheduler, so that no worker waits for this process.
TASKS_PER_WORKER = 3

# How long a cluster may be without any worker, in s, before the command ends. A worker that died
# is started again within a few seconds.
WORKERS_TIMEOUT_S = 7

# How often a cluster is asked for its workers at most, in s.
LOOK_EVERY_S = 1

# How many times local workers that ended while they started are replaced before a task ends. Two
# workers may die of the same task, so two must be replaced.
REPLACEMENTS = 2


class DaskExecutor(Executor):
    """Runs tasks on the workers of a Dask cluster.

    The cluster forgets a task as soon as the result is here: if the cluster kept the result, the
    death of a worker would make the cluster run all tasks again that the worker had ended.

    Args:
        client: a client of the cluster.
        address: address of the scheduler, for messages.
        cluster: the cluster, if this process started the cluster; its workers start as tasks need
            them, one for each task at most.
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
        self._cluster = cluster
        self._max_workers = max_workers
        # Number of workers of `cluster` that were asked for.
        self._workers = 0
        self._running: set[Future[Any]] = set()
        self._submitted = 0
        # The time at which the workers began to work on the tasks that run.
        self._began = time.monotonic()
        # How long the process of a worker takes to start, in s; None until one has started.
        self._start_s: float | None = None
        self._slots = 0
        # How many times workers were replaced since a task ended.
        self._replacements = 0
        self._scheduler_is_gone = False
        # When the cluster was asked for its workers, when the cluster answered, and when a worker
        # was there.
        self._last_asked = -math.inf
        self._last_answer = self._last_seen = time.monotonic()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on a worker.

        The future never ends if the scheduler is gone; ``require_workers`` reports the loss. So the
        caller can record all results that have arrived before the loss.
        """
        now = time.monotonic()
        if not self._running:
            self._submitted, self._began = 0, now
            # Nobody looked at the workers while there was no work.
            self._last_answer = self._last_seen = now
        future: Future[Any] = Future()
        self._submitted += 1
        self._running.add(future)
        future.add_done_callback(self._note_end)
        self._start_workers(FIRST_WORKERS, len(self._running))
        from distributed.client import ClosedClientError

        try:
            task = self._client.submit(fn, *args, pure=False, **kwargs)
        except ClosedClientError:
            self._scheduler_is_gone = True
        else:
            loop: Any = self._client.loop
            loop.add_callback(self._deliver, task, future)
        return future

    def _note_end(self, future: Future[Any]) -> None:
        self._running.discard(future)
        self._replacements = 0

    async def _deliver(self, task: "Task[Any]", future: Future[Any]) -> None:
        """Hand the result of a task to the caller, and make the cluster forget the task."""
        from distributed import CancelledError, KilledWorker

        future.add_done_callback(lambda _: task.release())
        try:
            result = await task
        except CancelledError:
            # The scheduler is gone, and a new scheduler at the same address knows no tasks.
            self._scheduler_is_gone = True
        except KilledWorker as error:
            future.set_exception(WorkerDiedError(error.allowed_failures + 1))
        except Exception as error:
            if not future.cancelled():
                future.set_exception(error)
        else:
            if not future.cancelled():
                future.set_result(result)

    def tasks_in_flight(self, left: int) -> int:
        """Return how many tasks keep every worker busy; start more local workers if they pay.

        Args:
            left: number of tasks that have not ended, whether or not they are submitted.
        """
        self._look_for_workers()
        if self._cluster is not None:
            self._start_workers_that_pay(self._cluster, left)
        return TASKS_PER_WORKER * max(self._workers, self._slots, FIRST_WORKERS)

    def _start_workers_that_pay(self, cluster: "LocalCluster", left: int) -> None:
        seconds = time.monotonic() - self._began
        if self._start_s is not None:
            ended = self._submitted - len(self._running)
            wanted = workers_that_pay(
                self._workers, ended=ended, left=left, seconds=seconds, start_s=self._start_s
            )
            self._start_workers(wanted, left)
        elif cluster.scheduler_info["workers"]:
            self._start_s, self._began = seconds, time.monotonic()

    def _start_workers(self, wanted: int, left: int) -> None:
        wanted = min(wanted, self._max_workers, left)
        if self._cluster is not None and wanted > self._workers:
            self._workers = wanted
            self._cluster.scale(wanted)

    def require_workers(self) -> None:
        """Do nothing if the cluster can still run tasks.

        Raises:
            RunError: the scheduler is gone, all workers have been gone for some seconds, or no
                worker process can be started on this machine.
        """
        self._look_for_workers()
        if self._scheduler_is_gone:
            raise self._lost_error("the scheduler is gone")
        if self._cluster is not None:
            self._replace_dead_workers(self._cluster)
        elif time.monotonic() - self._last_seen > WORKERS_TIMEOUT_S:
            raise self._lost_error("all workers are gone")

    def _look_for_workers(self) -> None:
        """Count the threads of the workers, at most once a second."""
        now = time.monotonic()
        if now - self._last_asked < LOOK_EVERY_S or self._scheduler_is_gone:
            return
        self._last_asked = now
        if self._cluster is not None:
            # The scheduler is an object of this process, so no busy machine can hide the scheduler.
            scheduler: Any = self._cluster.scheduler
            workers = list(scheduler.workers.values())
            self._note_slots(sum(worker.nthreads for worker in workers))
            return
        scheduler = self._client.scheduler
        try:
            threads = scheduler and self._client.sync(
                scheduler.ncores, callback_timeout=SCHEDULER_TIMEOUT_S
            )
        except TimeoutError:
            # A scheduler on a busy machine answers late.
            silent_s = time.monotonic() - self._last_answer
            self._scheduler_is_gone = silent_s > SILENT_SCHEDULER_S
        except OSError:
            self._scheduler_is_gone = True
        else:
            self._scheduler_is_gone = threads is None
            self._note_slots(sum((threads or {}).values()))

    def _note_slots(self, slots: int) -> None:
        self._slots = slots
        self._last_answer = time.monotonic()
        if slots:
            self._last_seen = self._last_answer

    def _replace_dead_workers(self, cluster: "LocalCluster") -> None:
        """Start a worker for each worker of this process's cluster that Dask has given up.

        Dask starts a worker again that dies, but gives up a worker that dies before Dask has noted
        that the worker has started. A unit that ends its worker can do so that early.

        Raises:
            RunError: no worker runs, and the replacements ended while they started, too.
        """
        workers = list(cluster.workers.items())
        dead = {name for name, worker in workers if worker.status.name in ("failed", "closed")}
        dead &= cluster.worker_spec.keys()
        if not dead:
            return
        if self._replacements == REPLACEMENTS:
            if not self._slots:
                raise no_processes_error()
            return
        self._replacements += 1
        for name in dead:
            # Dask ends a worker whose name goes, and starts a worker for each new name.
            cluster.worker_spec[f"{name}-again"] = cluster.worker_spec.pop(name)
        cluster.scale(self._workers)

    def _lost_error(self, reason: str) -> RunError:
        return RunError(
            f"{self._address}: {reason}. What is done is safe: start the cluster and run the same "
            "command again."
        )


class WorkerDiedError(RunError):
    """Every worker that ran a task died.

    Dask blames all tasks that waited on a worker that died, so the task may be innocent.

    Args:
        deaths: number of workers that died.
    """

    def __init__(self, deaths: int) -> None:
        super().__init__(
            f"{deaths} worker processes in a row ended while they did this unit: the memory did "
            "not suffice, or the system ended the process"
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
