"""The worker's side of a task: runs the units of the task, and publishes their files together."""

import os
import pickle
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from upath import UPath

from avsnn.errors import RunError, UserError
from avsnn.pipeline.engine.atomic_files import (
    Output,
    flush_file,
    publish,
    sync_folder,
)
from avsnn.pipeline.engine.is_done import input_digests
from avsnn.pipeline.engine.journal import Record
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit

# A task begins no further unit after this time, in s. A kill costs the units of one task for each
# worker, so a task of several units must be short.
TASK_S = 1.0


@dataclass(frozen=True)
class UnitError:
    """A unit that stays undone, because the unit raised an exception.

    Attributes:
        unit: name of the unit.
        error: the exception; pickle can send the exception to another process.
    """

    unit: str
    error: Exception


@dataclass
class _UnitRun:
    """A unit that ran.

    Attributes:
        unit: the unit.
        outcome: what the unit did.
        outputs: the files to publish, by their path in the stage's folder.
        seconds: how long the unit ran, in s.
        published: the files, once they are flushed.
        error: why the files could not be published.
    """

    unit: Unit
    outcome: Outcome
    outputs: tuple[str, ...]
    seconds: float
    published: tuple[Output, ...] = ()
    error: Exception | None = None


def run_units(stage: Stage, units: Sequence[Unit]) -> list[Record | UnitError]:
    """Run the units of a task in a worker, and publish their outputs: all of a unit's, or none.

    The outputs of all units are flushed, then the outputs are renamed, then each folder is synced
    once. Files that are flushed one after another take several times as long. A unit that raises,
    or whose inputs failed and none was written, publishes no output.

    Args:
        stage: the stage of the units.
        units: the units. They share one scratch folder.

    Returns:
        the record or the error of each unit, in the order of ``units``. A task that has taken a
        second begins no further unit, so the last units may be missing here; a missing unit was
        not begun.

    Raises:
        UserError: this machine does not see the folder of the journal.
    """
    partial = stage.state / "partial"
    if not stage.state.is_dir():
        raise UserError(
            f"{platform.node()} does not see {stage.state}, which must be on a shared file system"
        )
    partial.mkdir(exist_ok=True)
    # FFmpeg takes a relative path with a colon for an address.
    scratch = Path(mkdtemp(dir=partial)).absolute()
    began = time.monotonic()
    runs: list[_UnitRun | UnitError] = []
    try:
        for unit in units:
            if runs and time.monotonic() - began > TASK_S:
                break
            runs.append(_run(stage, unit, scratch))
        ended = [run for run in runs if isinstance(run, _UnitRun)]
        _publish(stage, ended, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [run if isinstance(run, UnitError) else _result(stage, run) for run in runs]


def _run(stage: Stage, unit: Unit, scratch: Path) -> _UnitRun | UnitError:
    began = time.monotonic()
    try:
        outcome = stage.run(unit, scratch)
    except Exception as error:
        return UnitError(unit.name, _sendable(error))
    outputs = unit.outputs if outcome.written or not outcome.failures else ()
    return _UnitRun(unit, outcome, outputs, time.monotonic() - began)


def _sendable(error: Exception) -> Exception:
    """Return an exception that reaches another process; some libraries raise others."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - the bytes were made in this line
    except Exception:
        return RunError(f"{type(error).__name__}: {error}")
    return error


def _publish(stage: Stage, runs: Sequence[_UnitRun], scratch: Path) -> None:
    """Publish the outputs of all units; an error of one unit is noted and stays with the unit."""
    began = time.monotonic()
    folder = stage.folder
    if not isinstance(folder, UPath):
        for step in (_flush, _rename):
            for run in runs:
                try:
                    if run.error is None:
                        step(run, scratch, folder)
                except Exception as error:
                    run.error = _sendable(error)
        _sync_folders(runs, folder)
    else:
        for run in runs:
            try:
                run.published = tuple(publish(scratch / name, folder, name) for name in run.outputs)
            except Exception as error:
                run.error = _sendable(error)
    for run in runs:
        run.seconds += (time.monotonic() - began) / len(runs)


def _flush(run: _UnitRun, scratch: Path, _: Path) -> None:
    run.published = tuple(
        flush_file(f"{scratch}/{name}", name, run.outcome.digests.get(name)) for name in run.outputs
    )


def _rename(run: _UnitRun, scratch: Path, folder: Path) -> None:
    for name in run.outputs:
        # To make a `Path` takes longer than to rename a file.
        source, target = f"{scratch}/{name}", f"{folder}/{name}"
        try:
            os.replace(source, target)  # noqa: PTH105
        except FileNotFoundError:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)  # noqa: PTH105


def _sync_folders(runs: Sequence[_UnitRun], folder: Path) -> None:
    """Sync each folder that got a file; a folder that cannot be synced is an error of its units."""
    errors: dict[str, OSError | None] = {}
    for run in runs:
        if run.error is not None:
            continue
        for name in run.outputs:
            parent = name.rpartition("/")[0]
            if parent not in errors:
                errors[parent] = None
                try:
                    sync_folder(folder / parent)
                except OSError as error:
                    errors[parent] = error
            run.error = run.error or errors[parent]


def _result(stage: Stage, run: _UnitRun) -> Record | UnitError:
    unit, outcome = run.unit, run.outcome
    try:
        for name in set(unit.outputs) - set(run.outputs):
            # An earlier run may have published the file from inputs that fail now.
            (stage.folder / name).unlink(missing_ok=True)
    except OSError as error:
        run.error = run.error or error
    if run.error is not None:
        return UnitError(unit.name, run.error)
    return Record(
        unit=unit.name,
        fingerprint=stage.fingerprint(unit),
        version=stage.version,
        settings=stage.settings(),
        inputs=input_digests(unit),
        outputs=run.published,
        written=outcome.written,
        skipped=outcome.skipped,
        failures=tuple(outcome.failures),
        seconds=round(run.seconds, 3),
        tallies=outcome.tallies,
    )
