"""Runs the units of a stage that are not done, and publishes what the units write."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import mkdtemp

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.atomic_files import DISK_FULL_ERRNOS, disk_full_error, publish
from avsnn.pipeline.engine.carry import carry_units
from avsnn.pipeline.engine.executor import require_workers, tasks_in_flight
from avsnn.pipeline.engine.is_done import input_digests
from avsnn.pipeline.engine.journal import Record, StageSummary, append_records
from avsnn.pipeline.engine.plan import NO_UNITS, plan
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.engine.stage import Stage, Unit, records

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
    last_records = current.last_records
    to_run = current.todo
    if current.todo:
        stage.state.mkdir(parents=True, exist_ok=True)
        if current.carried:
            to_run = carry_units(stage, current)
        errors = _run_units(stage, to_run, executor(), progress) if to_run else {}
        if errors:
            raise _error_of_stage(stage, errors, len(current.units))
        last_records = records(stage)
    if stage.prunes:
        _prune(stage, last_records, {unit.name for unit in current.units})
    return StageSummary(
        stage.name,
        tuple(last_records[unit.name] for unit in current.units),
        units_done_now=len(to_run),
        seconds=time.monotonic() - began,
    )


def _run_units(
    stage: Stage, todo: list[Unit], executor: Executor, progress: Progress
) -> dict[str, BaseException]:
    """Run units and record each unit that ends; return the errors, by the unit's name."""
    errors: dict[str, BaseException] = {}
    failed = written_bytes = 0
    began = time.monotonic()
    progress.start(stage.name, len(todo), "units")
    futures: dict[Future[Record], Unit] = {}
    unrecorded: list[Record] = []
    try:
        with append_records(stage.journal) as append:
            for unit in todo:
                futures[executor.submit(run_unit, stage, unit)] = unit
            for future in _as_completed(futures, executor):
                error = future.exception()
                if error is None:
                    record = future.result()
                    try:
                        append(record)
                    except OSError:
                        unrecorded.append(record)
                    failed += len(record.failures)
                    written_bytes += sum(output.size for output in record.outputs)
                else:
                    errors[futures[future].name] = error
                rate = written_bytes / 1e6 / max(1e-9, time.monotonic() - began)
                note = f"{written_bytes / 1e6:,.1f} MB, {rate:,.1f} MB/s"
                progress.advance(note=f"{note}, {failed:,} failed" if failed else note)
            # The unit that filled the disk has deleted its scratch files by now, so a second try
            # can succeed.
            for record in unrecorded:
                try:
                    append(record)
                except OSError as error:
                    errors[record.unit] = error
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    finally:
        progress.stop()
    return errors


def _as_completed(
    futures: Mapping[Future[Record], Unit], executor: Executor
) -> Iterator[Future[Record]]:
    """Yield the futures as they end.

    Raises:
        RunError: the workers of the executor are gone.
    """
    ended: SimpleQueue[Future[Record]] = SimpleQueue()
    for future in futures:
        future.add_done_callback(ended.put)
    for number in range(len(futures)):
        while True:
            tasks_in_flight(executor, len(futures) - number)
            try:
                yield ended.get(timeout=WORKERS_CHECK_S)
                break
            except Empty:
                require_workers(executor)


def run_unit(stage: Stage, unit: Unit) -> Record:
    """Run one unit in a worker and publish its outputs: all outputs, or none.

    No output is published if the unit raises, or if inputs failed and none was written.
    """
    began = time.monotonic()
    partial = stage.state / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    # FFmpeg takes a relative path with a colon for an address.
    scratch = Path(mkdtemp(dir=partial)).absolute()
    try:
        outcome = stage.run(unit, scratch)
        outputs = unit.outputs if outcome.written or not outcome.failures else ()
        published = tuple(publish(scratch / name, stage.folder, name) for name in outputs)
        for name in set(unit.outputs) - set(outputs):
            # An earlier run may have published the file from inputs that fail now.
            (stage.folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Record(
        unit=unit.name,
        fingerprint=stage.fingerprint(unit),
        version=stage.version,
        settings=stage.settings(),
        inputs=input_digests(unit),
        outputs=published,
        written=outcome.written,
        skipped=outcome.skipped,
        failures=tuple(outcome.failures),
        seconds=round(time.monotonic() - began, 3),
        tallies=outcome.tallies,
    )


def _error_of_stage(stage: Stage, errors: dict[str, BaseException], units: int) -> Exception:
    """Return the one error that stands for the errors of all units."""
    is_full = shutil.disk_usage(stage.state).free < FULL_DISK_FREE_BYTES
    os_errors = (error for error in errors.values() if isinstance(error, OSError))
    if is_full or any(error.errno in DISK_FULL_ERRNOS for error in os_errors):
        return disk_full_error(stage.folder)
    name, error = next(iter(errors.items()))
    kind = "" if isinstance(error, RunError | UserError) else f"{type(error).__name__}: "
    return RunError(
        f"{stage.name}: {len(errors):,} of {units:,} units could not be done (first: {name}: "
        f"{kind}{error}). The rest is safe: run the same command again."
    )


def _prune(stage: Stage, last_records: dict[str, Record], planned: set[str]) -> None:
    """Remove the files that only units of an earlier plan wrote."""
    wanted = {output.path for name in planned for output in last_records[name].outputs}
    for name, record in last_records.items():
        if name not in planned:
            for output in record.outputs:
                if output.path not in wanted:
                    (stage.folder / output.path).unlink(missing_ok=True)
