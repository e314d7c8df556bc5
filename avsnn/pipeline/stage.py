"""The stage engine: what idempotent and resumable mean here.

A stage turns inputs into files by independent units. A unit writes into a scratch folder; its
files are flushed and renamed into place, then its record is appended to the stage's journal. The
journal is the only proof that a unit is done: that a file exists proves nothing. Output files
depend on nothing but the unit, so any number of kills, workers or reruns gives the same bytes.
"""

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from avsnn.errors import RunError
from avsnn.pipeline.files import DISK_FULL, Folder, disk_full, fingerprint, publish, why_damaged
from avsnn.pipeline.journal import Failure, Record, Summary, append_records, read_journal

# With less than this a disk counts as full.
NO_ROOM_BYTES = 100_000

NOTHING: Mapping[str, str] = MappingProxyType({})


class Progress(Protocol):
    """Where long work reports to; the command line draws it, a log prints it."""

    def start(self, title: str, total: int, unit: str) -> None:
        """Work of ``total`` units begins."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """``count`` more units are done; ``note`` says how it stands."""

    def stop(self) -> None:
        """The work ended."""


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work that is done or not done.

    Attributes:
        name: unique in its stage.
        outputs: files it publishes, relative to the stage's folder.
        inputs: everything the outputs depend on besides the stage's settings: JSON values by name.
        work: what ``run`` needs; where None, ``inputs`` is all of it.
    """

    name: str
    outputs: tuple[str, ...]
    inputs: dict[str, Any]
    work: Any = None


@dataclass
class Outcome:
    """What a unit did with its inputs: inputs = written + skipped + failed."""

    written: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)


class Stage(ABC):
    """One stage. Subclasses are frozen dataclasses, so that a worker process can be handed one."""

    name: ClassVar[str]
    version: ClassVar[int]
    prunes: ClassVar[bool] = True

    folder: Folder
    state: Path

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings that change the outputs, as JSON values."""

    @abstractmethod
    def units(self) -> list[Unit]:
        """All units, in a fixed order. Reads what earlier stages published."""

    @abstractmethod
    def run(self, unit: Unit, scratch: Path) -> Outcome:
        """Writes the unit's outputs below ``scratch``. A clip's failure is part of the outcome."""

    def fingerprint(self, unit: Unit) -> str:
        """Changes exactly when the unit's outputs would."""
        return fingerprint([self.name, self.version, self.settings(), unit.name, unit.inputs])

    @property
    def journal(self) -> Path:
        """File that holds the records."""
        return self.state / f"{self.folder.name}.jsonl"


def records(stage: Stage) -> dict[str, Record]:
    """The journal, last record of each unit; a line torn by a kill counts as never written."""
    try:
        stat = stage.journal.stat()
    except FileNotFoundError:
        return {}
    return dict(read_journal(stage.journal, stat.st_mtime_ns, stat.st_size))


@dataclass(frozen=True)
class Plan:
    """What a stage has done and has to do, in the units' own order.

    Attributes:
        units: all of them.
        todo: those to run.
        reasons: why each of these has to run, by name.
        done: the last record of each unit that has one.
    """

    units: list[Unit]
    todo: list[Unit]
    reasons: dict[str, str]
    done: dict[str, Record]

    def standing(self, stage: Stage) -> Summary:
        """What is done and still holds."""
        kept = (unit.name for unit in self.units if unit.name not in self.reasons)
        return Summary(stage.name, tuple(self.done[name] for name in kept))

    def recorded(self, stage: Stage) -> Summary:
        """What was done at some time, whether or not it still holds."""
        names = (unit.name for unit in self.units if unit.name in self.done)
        return Summary(stage.name, tuple(self.done[name] for name in names))


def plan(stage: Stage, *, retry_failed: bool = False, redo: Mapping[str, str] = NOTHING) -> Plan:
    """Finds the units that are not done, were done from other inputs, or whose files changed.

    Args:
        stage: whose units.
        retry_failed: also those that recorded failures.
        redo: also these, by name, each with its reason.
    """
    known = records(stage)
    units = stage.units()
    reasons = {}
    for unit in units:
        why = redo.get(unit.name) or _why_run(stage, unit, known.get(unit.name), retry_failed)
        if why:
            reasons[unit.name] = why
    todo = [unit for unit in units if unit.name in reasons]
    return Plan(units=units, todo=todo, reasons=reasons, done=known)


def run_stage(
    stage: Stage,
    *,
    executor: Callable[[], Executor],
    progress: Progress,
    retry_failed: bool = False,
    redo: Mapping[str, str] = NOTHING,
) -> Summary:
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
    return Summary(
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
        inputs=_digests(unit),
        outputs=published,
        written=outcome.written,
        skipped=outcome.skipped,
        failures=tuple(outcome.failures),
        seconds=round(time.monotonic() - began, 3),
    )


def _digests(unit: Unit) -> dict[str, str]:
    return {name: fingerprint(value)[:8] for name, value in unit.inputs.items()}


def _why_run(stage: Stage, unit: Unit, record: Record | None, retry_failed: bool) -> str:
    """The reason to run a unit, cheapest check first; empty where there is none."""
    why = why_stale(stage, unit, record)
    if why or record is None:
        return why
    if retry_failed and record.failures:
        return f"failed before: {record.failures[0].reason}"
    for output in record.outputs:
        if why := why_damaged(stage.folder / output.path, output):
            return f"{output.path} {why}"
    return ""


def why_stale(stage: Stage, unit: Unit, record: Record | None) -> str:
    """What makes a unit's record not hold any more; empty where it holds."""
    if record is None:
        return "not done yet"
    if record.fingerprint == stage.fingerprint(unit):
        return ""
    if record.version != stage.version:
        return f"this version of avsnn does it differently ({record.version}, now {stage.version})"
    # As the journal holds them: a tuple comes back from it as a list.
    then, now = record.settings, json.loads(json.dumps(stage.settings()))
    if then != now:
        keys = [key for key in now if then.get(key) != now[key]] or ["settings"]
        return ", ".join(f"{key} was {then.get(key)}, is {now.get(key)}" for key in keys)
    then, now = record.inputs, _digests(unit)
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    more = f" and {len(changed) - 1:,} more" if len(changed) > 1 else ""
    kind = "new" if changed[0] not in then else "gone" if changed[0] not in now else "changed"
    return f"input {changed[0]} is {kind}{more}"


def _prune(stage: Stage, known: dict[str, Record], planned: set[str]) -> None:
    """Removes files that only units of an earlier plan wrote."""
    wanted = {output.path for name in planned for output in known[name].outputs}
    for name, record in known.items():
        if name not in planned:
            for output in record.outputs:
                if output.path not in wanted:
                    (stage.folder / output.path).unlink(missing_ok=True)
