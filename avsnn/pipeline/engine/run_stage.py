"""Runs the units of a stage that are not done, and publishes what the units write."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from itertools import islice
from queue import Empty, SimpleQueue

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.atomic_files import DISK_FULL_ERRNOS, disk_full_error
from avsnn.pipeline.engine.carry import carry_units
from avsnn.pipeline.engine.dask_executor import WorkerDiedError
from avsnn.pipeline.engine.executor import require_workers, tasks_in_flight
from avsnn.pipeline.engine.journal import Record, StageSummary, append_records, summarise
from avsnn.pipeline.engine.plan import NO_UNITS, Plan, plan
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.engine.run_units import UnitError, run_units
from avsnn.pipeline.engine.stage import Stage, Unit, outputs_of, records, records_of_units

# A disk with less free space than this counts as full: a library that finds no room may raise an
# error of its own, from which a full disk cannot be told.
FULL_DISK_FREE_BYTES = 100_000

# While no unit ends, the command asks this often, in s, whether the workers are still there.
WORKERS_CHECK_S = 1.0


def run_stage(
    stage: Stage,
    *,
    executor: Callable[[], Executor],
    progress: Progress,
    retry_failed: bool = False,
    redo: Mapping[str, str] = NO_UNITS,
) -> StageSummary:
    """Run the units that are not done, and take units from earlier folders that are done there.

    A unit that raises an exception stays undone and does not stop the other units.

    Args:
        stage: the stage to run.
        executor: returns the executor that runs the units; called only when there is work.
        progress: told of every unit that ends.
        retry_failed: run the units that recorded failures too.
        redo: units to run in any case, each with its reason, by the unit's name.

    Raises:
        RunError: a unit raised an exception (the message says which unit and why), or the workers
            of a cluster are gone.
        UserError: the disk is full.
    """
    began = time.monotonic()
    current = plan(stage, retry_failed=retry_failed, redo=redo)
    summary, to_run = current.up_to_date, 0
    if current.todo_count:
        stage.state.mkdir(parents=True, exist_ok=True)
        if current.carried_count:
            carry_units(current)
        to_run = current.todo_count
        errors = _UnitsRun(current, executor(), progress).run() if to_run else _Errors()
        if errors.count:
            raise _error_of_stage(stage, errors, current.unit_count)
        summary = summarise(stage.name, records_of_units(stage))
    if stage.prunes:
        _prune(stage)
    return replace(summary, units_done_now=to_run, seconds=time.monotonic() - began)


@dataclass
class _Errors:
    """The errors of units; only the first one is kept.

    Attributes:
        count: number of units with an error.
        first: name of the first such unit, and its error.
        is_disk_full: whether an error was about a full disk.
    """

    count: int = 0
    first: tuple[str, BaseException] | None = None
    is_disk_full: bool = False

    def add(self, unit: str, error: BaseException) -> None:
        """Count the error of a unit."""
        self.count += 1
        self.first = self.first or (unit, error)
        self.is_disk_full |= isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS


class _UnitsRun:
    """Runs the units of a plan, and records each unit that ends.

    A worker gets a task of some units at a time. Only a few tasks for each worker are submitted at
    a time, and the results of a task are dropped once they are in the journal, so the memory holds
    as many units as are running.
    """

    def __init__(self, plan: Plan, executor: Executor, progress: Progress) -> None:
        self._stage = plan.stage
        self._executor = executor
        self._progress = progress
        self._units = plan.todo()
        self._unit_count = self._units_left = plan.todo_count
        self._batch_size = plan.stage.batch_size
        self._running: dict[Future[list[Record | UnitError]], list[Unit]] = {}
        # Units that came back without a result.
        self._returned: list[Unit] = []
        # Units of tasks whose workers died. Dask blames every task on a worker, so each unit runs
        # again at the end, while nothing else runs.
        self._suspects: list[Unit] = []
        self._is_one_at_a_time = False
        self._unrecorded: list[Record] = []
        self._errors = _Errors()
        self._failed = self._written_bytes = 0
        self._began = time.monotonic()

    def run(self) -> _Errors:
        """Run the units, and return the errors."""
        self._progress.start(self._stage.name, self._unit_count, "units")
        try:
            with append_records(self._stage.journal) as append:
                for units, future in self._ended_tasks():
                    self._note_results(units, future, append)
                # The unit that filled the disk has deleted its scratch files by now, so a second
                # try can succeed.
                for record in self._unrecorded:
                    try:
                        append(record)
                    except OSError as error:
                        self._errors.add(record.unit, error)
        except BaseException:
            for future in self._running:
                future.cancel()
            raise
        finally:
            self._progress.stop()
        return self._errors

    def _ended_tasks(self) -> Iterator[tuple[list[Unit], Future[list[Record | UnitError]]]]:
        """Submit tasks, and yield the tasks as they end.

        Raises:
            RunError: the workers of the executor are gone.
        """
        ended: SimpleQueue[Future[list[Record | UnitError]]] = SimpleQueue()
        while True:
            for units in self._tasks_to_submit():
                future = self._executor.submit(run_units, self._stage, units)
                self._running[future] = units
                future.add_done_callback(ended.put)
            if not self._running:
                return
            try:
                future = ended.get(timeout=WORKERS_CHECK_S)
            except Empty:
                require_workers(self._executor)
                continue
            yield self._running.pop(future), future

    def _tasks_to_submit(self) -> Iterator[list[Unit]]:
        """Yield tasks until the workers have enough to do."""
        # Where the disk has no room for a record, no unit can be done.
        while not self._unrecorded:
            most = tasks_in_flight(self._executor, -(-self._units_left // self._batch_size))
            # The last tasks are smaller, so that all workers end at the same time.
            size = min(self._batch_size, -(-self._units_left // most))
            if len(self._running) >= most:
                return
            units = self._returned[:size] or [*islice(self._units, size)]
            del self._returned[:size]
            if not units and self._suspects and not self._running:
                self._is_one_at_a_time = True
                units = [self._suspects.pop()]
            if not units:
                return
            yield units

    def _note_results(
        self,
        units: list[Unit],
        future: Future[list[Record | UnitError]],
        append: Callable[[Record], None],
    ) -> None:
        """Record the units of a task that has ended."""
        error = future.exception()
        if isinstance(error, WorkerDiedError) and not self._is_one_at_a_time:
            self._suspects += units
            return
        if error:
            for unit in units:
                self._errors.add(unit.name, error)
        results = [] if error else future.result()
        for result in results:
            if isinstance(result, UnitError):
                self._errors.add(result.unit, result.error)
                continue
            try:
                append(result)
            except OSError:
                self._unrecorded.append(result)
            self._failed += len(result.failures)
            self._written_bytes += sum(output.size for output in result.outputs)
        ended = len(units) if error else len(results)
        # A task that has worked for long comes back before it has begun all of its units.
        self._returned += units[ended:]
        self._units_left -= ended
        rate = self._written_bytes / 1e6 / max(1e-9, time.monotonic() - self._began)
        note = f"{self._written_bytes / 1e6:,.1f} MB, {rate:,.1f} MB/s"
        if self._failed:
            note = f"{note}, {self._failed:,} failed"
        for _ in range(ended):
            self._progress.advance(note=note)


def _error_of_stage(stage: Stage, errors: _Errors, units: int) -> Exception:
    """Return the one error that stands for the errors of all units."""
    is_full = shutil.disk_usage(stage.state).free < FULL_DISK_FREE_BYTES
    if is_full or errors.is_disk_full:
        return disk_full_error(stage.folder)
    assert errors.first is not None  # noqa: S101 - narrows the type
    name, error = errors.first
    kind = "" if isinstance(error, RunError | UserError) else f"{type(error).__name__}: "
    return RunError(
        f"{stage.name}: {errors.count:,} of {units:,} units could not be done (first: {name}: "
        f"{kind}{error}). The rest is safe: run the same command again."
    )


def _prune(stage: Stage) -> None:
    """Remove the files that only units of an earlier plan wrote."""
    gone = records(stage).of_other_units(unit.name for unit in stage.units())
    unwanted = {output.path for record in gone for output in record.outputs}
    if unwanted:
        unwanted.difference_update(output.path for output in outputs_of(stage))
    for path in unwanted:
        (stage.folder / path).unlink(missing_ok=True)
