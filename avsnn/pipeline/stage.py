"""The stage engine: what idempotent and resumable mean here.

A stage turns inputs into files by independent units. A unit writes into a scratch folder; its
files are flushed and renamed into place, then its record is appended to the stage's journal. The
journal is the only proof that a unit is done: that a file exists proves nothing. Output files
depend on nothing but the unit, so any number of kills, workers or reruns gives the same bytes.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from filelock import FileLock, Timeout
from upath import UPath

from avsnn.errors import RunError, UserError

#: A folder on this machine, or one that fsspec knows by its URL.
Folder = Path | UPath

NOTHING: Mapping[str, str] = MappingProxyType({})

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


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


@dataclass(frozen=True)
class Failure:
    """A clip or file that could not be used, and why."""

    stage: str
    key: str
    reason: str
    path: str = ""


@dataclass
class Outcome:
    """What a unit did with its inputs: inputs = written + skipped + failed."""

    written: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Output:
    """A published file as its record knows it."""

    path: str
    size: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True)
class Record:
    """Proof that a unit is done, one line of the journal.

    The fingerprint says whether it still holds; version, settings and a short hash of each input
    say afterwards what changed.
    """

    unit: str
    fingerprint: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, str]
    outputs: tuple[Output, ...]
    written: int
    skipped: int
    failures: tuple[Failure, ...]
    seconds: float

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Parses one journal line; KeyError, TypeError or ValueError where it is torn."""
        raw = json.loads(line)
        raw["outputs"] = tuple(Output(**output) for output in raw["outputs"])
        raw["failures"] = tuple(Failure(**failure) for failure in raw["failures"])
        return cls(**raw)


@dataclass(frozen=True)
class Summary:
    """How a stage stands: the records of its units, and what the run did that made it."""

    stage: str
    records: tuple[Record, ...]
    units_done_now: int = 0
    seconds: float = 0.0

    @property
    def written(self) -> int:
        """Inputs that are in the outputs."""
        return sum(record.written for record in self.records)

    @property
    def skipped(self) -> int:
        """Inputs left out because an earlier stage counted them as failed."""
        return sum(record.skipped for record in self.records)

    @property
    def failures(self) -> list[Failure]:
        """Inputs that could not be used."""
        return [failure for record in self.records for failure in record.failures]

    @property
    def failed(self) -> int:
        """How many these are."""
        return sum(len(record.failures) for record in self.records)

    @property
    def inputs(self) -> int:
        """Everything that went in."""
        return self.written + self.skipped + self.failed

    @property
    def outputs(self) -> list[Output]:
        """All published files."""
        return [output for record in self.records for output in record.outputs]

    @property
    def bytes(self) -> int:
        """Size of these."""
        return sum(output.size for record in self.records for output in record.outputs)


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


def locate(folder: Path, name: str) -> Folder:
    """What :func:`name_in` names: a place below the folder, or one with a URL of its own."""
    return UPath(name) if "://" in name else folder / name


def name_in(folder: Path, place: Folder) -> str:
    """A place by its path below the folder, or by its URL."""
    return str(place) if isinstance(place, UPath) else str(place.relative_to(folder))


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


def records(stage: Stage) -> dict[str, Record]:
    """The journal, last record of each unit; a line torn by a kill counts as never written."""
    try:
        stat = stage.journal.stat()
    except FileNotFoundError:
        return {}
    return dict(_read_journal(stage.journal, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=8)
def _read_journal(journal: Path, mtime_ns: int, size: int) -> dict[str, Record]:
    """Several stages ask for the same journal, which has a line per file of a data set."""
    found: dict[str, Record] = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        with suppress(KeyError, TypeError, ValueError):
            record = Record.from_json(line)
            found[record.unit] = record
    return found


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
    name, error = next(iter(broken.items()))
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return _disk_full(stage.folder)
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
        with _append(stage.journal) as journal:
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


def publish(source: Path, folder: Folder, name: str) -> Output:
    """Moves a whole file to its final name, safe against power loss, and says what it holds."""
    target = folder / name
    digest = sha256(source)
    if isinstance(target, UPath):
        return _upload(source, target, Output(name, source.stat().st_size, digest, mtime_ns=0))
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)
    _sync_folder(target.parent)
    stat = target.stat()
    return Output(path=name, size=stat.st_size, sha256=digest, mtime_ns=stat.st_mtime_ns)


def _upload(source: Path, target: UPath, output: Output) -> Output:
    """The same to a URL: under another name first, since not every store writes whole files."""
    partial = f"{target.path}.partial"
    target.fs.makedirs(target.parent.path, exist_ok=True)
    target.fs.put_file(str(source), partial)
    if target.fs.size(partial) != output.size:
        raise OSError(errno.EIO, "the store kept another size than was sent", str(target))
    target.fs.mv(partial, target.path)
    return output


def write_atomically(target: Path, data: bytes) -> None:
    """A small file, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    publish(partial, target.parent, target.name)


def write_if_changed(target: Path, data: bytes) -> None:
    """The same, unless it holds just that already."""
    if not target.exists() or target.read_bytes() != data:
        write_atomically(target, data)


def sha256(path: Folder) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


@contextmanager
def only_writer(folder: Path, *, tidy: bool = True) -> Iterator[None]:
    """Holds the folder's lock; removes what a killed run left half done, where ``tidy``.

    Raises:
        UserError: another run holds it, the folder cannot be made, or its disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        with lock.acquire(timeout=0):
            if tidy:
                shutil.rmtree(folder / "state" / "partial", ignore_errors=True)
            yield
    except Timeout:
        raise UserError(
            f"another avsnn run is writing to {folder}. Wait for it, or use another --root."
        ) from None
    except OSError as error:
        if error.errno in DISK_FULL:
            raise _disk_full(folder) from None
        named = error.filename is not None and folder.is_relative_to(str(error.filename))
        if named and isinstance(error, PermissionError | NotADirectoryError | FileNotFoundError):
            reason = f"cannot write to {folder}: {error.strerror}. Choose another."
            raise UserError(reason) from None
        raise


def _disk_full(folder: Folder) -> UserError:
    return UserError(
        f"the disk that holds {folder} is full. What is done is safe: free some space and run the "
        "same command again."
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


def why_damaged(path: Folder, output: Output, *, rehash: bool = False) -> str:
    """What is wrong with a published file, by size and time, or by its bytes; empty if nothing."""
    try:
        stat = path.stat()
    except OSError:
        return "is missing"
    if stat.st_size != output.size:
        return f"has {stat.st_size:,} bytes, {output.size:,} were written"
    if isinstance(path, UPath) and not rehash:
        return ""
    # A copied tree has new times: the bytes decide, not the clock.
    if (rehash or stat.st_mtime_ns != output.mtime_ns) and sha256(path) != output.sha256:
        return "holds other bytes than were written"
    return ""


def _prune(stage: Stage, known: dict[str, Record], planned: set[str]) -> None:
    """Removes files that only units of an earlier plan wrote."""
    wanted = {output.path for name in planned for output in known[name].outputs}
    for name, record in known.items():
        if name not in planned:
            for output in record.outputs:
                if output.path not in wanted:
                    (stage.folder / output.path).unlink(missing_ok=True)


@contextmanager
def _append(journal: Path) -> Iterator[Callable[[Record], None]]:
    """Appends records, each whole or not at all; synced to disk once a second and at the end."""
    with journal.open("ab+", buffering=0) as file:
        # A kill can leave a torn last line; starting on a fresh one keeps the next record whole.
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")
        synced = time.monotonic()

        def append(record: Record) -> None:
            nonlocal synced
            size = file.seek(0, os.SEEK_END)
            line = json.dumps(asdict(record)).encode() + b"\n"
            if file.write(line) != len(line):
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(journal))
            if time.monotonic() - synced > 1:
                os.fsync(file.fileno())
                synced = time.monotonic()

        yield append
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
