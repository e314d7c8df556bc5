"""Runs the units of a stage that are not done, and publishes what they write."""

import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, as_completed
from pathlib import Path
from tempfile import mkdtemp

from avsnn.errors import RunError
from avsnn.pipeline.engine.files import DISK_FULL, disk_full, publish
from avsnn.pipeline.engine.journal import Record, StageSummary, append_records
from avsnn.pipeline.engine.plan import NOTHING, input_digests, plan
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.engine.stage import Stage, Unit, records

# With less than this a disk counts as full.
NO_ROOM_BYTES = 100_000


def run_stage(
    stage: Stage,
    *,
    executor: Callable[[], Executor],
    progress: Progress,
    retry_failed: bool = False,
    redo: Mapping[str, str] = NOTHING,
) -> StageSummary:
    """Does what is not done. A unit that raises is left undone and does not stop the rest.

    Args:
        stage: what to run.
        executor: gives the place where units run; only asked when there is work.
        progress: told of every unit that ends.
        retry_failed: do units again that recorded failures.
        redo: units to do again in any case, by name, each with its reason.

    Raises:
        RunError: a unit could not be done at all; says which and why.
        UserError: the disk is full.
    """
    began = time.monotonic()
    current = plan(stage, retry_failed=retry_failed, redo=redo)
    known = current.done
    if current.todo:
        stage.state.mkdir(parents=True, exist_ok=True)
        broken = _run_units(stage, current.todo, executor(), progress)
        if broken:
            raise _as_error(stage, broken, len(current.units))
        known = records(stage)
    if stage.prunes:
        _prune(stage, known, {unit.name for unit in current.units})
    return StageSummary(
        stage.name,
        tuple(known[unit.name] for unit in current.units),
        units_done_now=len(current.todo),
        seconds=time.monotonic() - began,
    )


def _as_error(stage: Stage, broken: dict[str, BaseException], units: int) -> Exception:
    # A library that finds no room may say so in its own way, or not at all.
    full = shutil.disk_usage(stage.state).free < NO_ROOM_BYTES
    errors = (error for error in broken.values() if isinstance(error, OSError))
    if full or any(error.errno in DISK_FULL for error in errors):
        return disk_full(stage.folder)
    name, error = next(iter(broken.items()))
    return RunError(
        f"{stage.name}: {len(broken)} of {units} units could not be done (first: {name}: "
        f"{type(error).__name__}: {error}). The rest is safe: run the same command again."
    )


def _run_units(
    stage: Stage, todo: list[Unit], executor: Executor, progress: Progress
) -> dict[str, BaseException]:
    broken: dict[str, BaseException] = {}
    failed = written = 0
    began = time.monotonic()
    progress.start(stage.name, len(todo), "units")
    futures: dict[Future[Record], Unit] = {}
    unrecorded: list[Record] = []
    try:
        with append_records(stage.journal) as journal:
            for unit in todo:
                futures[executor.submit(run_unit, stage, unit)] = unit
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    record = future.result()
                    try:
                        journal(record)
                    except OSError:
                        unrecorded.append(record)
                    failed += len(record.failures)
                    written += sum(output.size for output in record.outputs)
                else:
                    broken[futures[future].name] = error
                rate = written / 1e6 / max(1e-9, time.monotonic() - began)
                note = f"{written / 1e6:,.1f} MB, {rate:,.1f} MB/s"
                progress.advance(note=f"{note}, {failed:,} failed" if failed else note)
            # A unit that filled the disk has by now given its scratch space back.
            for record in unrecorded:
                try:
                    journal(record)
                except OSError as error:
                    broken[record.unit] = error
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    finally:
        progress.stop()
    return broken


def run_unit(stage: Stage, unit: Unit) -> Record:
    """Runs one unit in a worker and publishes its outputs; all of them or none."""
    began = time.monotonic()
    partial = stage.state / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    scratch = Path(mkdtemp(dir=partial))
    try:
        outcome = stage.run(unit, scratch)
        outputs = unit.outputs if outcome.written or not outcome.failures else ()
        published = tuple(publish(scratch / name, stage.folder, name) for name in outputs)
        for name in set(unit.outputs) - set(outputs):
            # What an earlier run made of inputs that now fail.
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
    )


def _prune(stage: Stage, known: dict[str, Record], planned: set[str]) -> None:
    """Removes files that only units of an earlier plan wrote."""
    wanted = {output.path for name in planned for output in known[name].outputs}
    for name, record in known.items():
        if name not in planned:
            for output in record.outputs:
                if output.path not in wanted:
                    (stage.folder / output.path).unlink(missing_ok=True)
