"""A task of several units: what is published, in which order, and what a kill leaves."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from avsnn.errors import RunError
from avsnn.pipeline.engine import run_units as engine
from avsnn.pipeline.engine.atomic_files import why_damaged
from avsnn.pipeline.engine.journal import Failure, Record, append_records
from avsnn.pipeline.engine.run_units import UnitError, run_units
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit, records


class OnlyHereError(Exception):
    """An exception that pickle cannot send."""

    def __init__(self, one: str, *, two: str) -> None:
        super().__init__(one + two)
        # Dask makes pickle send exceptions that plain pickle cannot make again.
        self.why = lambda: one


@dataclass(frozen=True)
class Write(Stage):
    """Each unit writes two files in two folders; some units raise, some record failures."""

    name: ClassVar[str] = "write"
    version: ClassVar[int] = 1

    folder: Path
    state: Path
    raising: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()

    def settings(self) -> dict[str, Any]:
        return {}

    def units(self) -> list[Unit]:
        return [
            Unit(name, (f"a/{name}", f"b/c/{name}"), {"text": name * 1000}) for name in "klmnop"
        ]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        for name in unit.outputs:
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_text(unit.inputs["text"])
        if unit.name in self.raising:
            raise OnlyHereError("half", two=" way")
        if unit.name in self.failing:
            return Outcome(failures=[Failure(self.name, unit.name, "is broken")])
        return Outcome(written=1)


def stage_in(folder: Path, **kwargs: Any) -> Write:
    (folder / "state").mkdir(exist_ok=True, parents=True)
    return Write(folder / "out", folder / "state", **kwargs)


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_unit_that_raises_or_fails_costs_the_other_units_of_its_task_nothing(
    tmp_path: Path,
) -> None:
    run_units(stage_in(tmp_path), stage_in(tmp_path).units())
    stage = stage_in(tmp_path, raising=frozenset("l"), failing=frozenset("n"))
    first, second, *_ = results = run_units(stage, stage.units())
    assert [type(result) for result in results] == [Record, UnitError, *[Record] * 4]
    assert isinstance(first, Record)
    assert all(not why_damaged(stage.folder / o.path, o, rehash=True) for o in first.outputs)
    # The files of `l` are those of the first run; the files of `n` came from inputs that fail now.
    assert names_in(stage.folder) == {f"{folder}/{n}" for n in "klmop" for folder in ("a", "b/c")}
    assert isinstance(second, UnitError)
    assert (second.unit, type(second.error), str(second.error)) == (
        "l",
        RunError,
        "OnlyHereError: half way",
    )
    assert not list((stage.state / "partial").iterdir())


def test_a_file_that_cannot_be_published_costs_its_own_unit_alone(tmp_path: Path) -> None:
    stage = stage_in(tmp_path)
    (stage.folder / "a" / "m" / "in the way").mkdir(parents=True)
    results = run_units(stage, stage.units())
    assert [type(result) for result in results] == [*[Record] * 2, UnitError, *[Record] * 3]


def test_a_long_task_ends_early_so_that_its_records_are_written_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TASK_S", -1)
    results = run_units(stage_in(tmp_path), stage_in(tmp_path).units())
    assert [result.unit for result in results] == ["k"]


def spy(monkeypatch: pytest.MonkeyPatch, told: Callable[[str, Any], None]) -> None:
    """Tell of every flush and of every rename, before the flush or the rename happens."""
    fsync, replace = os.fsync, os.replace

    def tell_fsync(handle: int) -> None:
        told("flush", os.fstat(handle).st_ino)
        fsync(handle)

    def tell_replace(source: str, target: str) -> None:
        told("rename", (Path(source).stat().st_ino, Path(target).parent.stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", tell_fsync)
    monkeypatch.setattr(os, "replace", tell_replace)


def test_a_file_is_flushed_before_it_has_its_name_and_its_folder_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_in(tmp_path)
    for folder in ("a", "b/c"):
        (stage.folder / folder).mkdir(parents=True)
    calls: list[tuple[str, Any]] = []
    spy(monkeypatch, lambda name, what: calls.append((name, what)))
    run_units(stage, stage.units())
    renames = [(at, what) for at, (name, what) in enumerate(calls) if name == "rename"]
    assert len(renames) == 12
    for at, (file, folder) in renames:
        assert ("flush", file) in calls[:at]
        assert ("flush", folder) in calls[at:]


@pytest.mark.parametrize("calls_before_kill", range(0, 28, 3))
def test_a_kill_in_a_task_leaves_whole_files_and_a_second_run_the_same_bytes(
    tmp_path: Path, calls_before_kill: int
) -> None:
    expected, stage = stage_in(tmp_path / "expected"), stage_in(tmp_path / "killed")
    run_units(expected, expected.units())
    child = os.fork()
    if child == 0:
        calls: list[str] = []

        def kill_at_last(name: str, _: Any) -> None:
            calls.append(name)
            if len(calls) > calls_before_kill:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            spy(pytest.MonkeyPatch(), kill_at_last)
            append_results(stage, stage.units())
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    for name in names_in(stage.folder):
        assert (stage.folder / name).read_bytes() == (expected.folder / name).read_bytes()
    done = records(stage)
    append_results(stage, [unit for unit in stage.units() if unit.name not in done])
    assert names_in(stage.folder) == names_in(expected.folder)
    for record in records(stage).values():
        for output in record.outputs:
            assert not why_damaged(stage.folder / output.path, output, rehash=True)


def append_results(stage: Stage, units: list[Unit]) -> None:
    """Run units in tasks of three, and append the records of each task to the journal."""
    stage.state.mkdir(parents=True, exist_ok=True)
    with append_records(stage.journal) as append:
        for first in range(0, len(units), 3):
            for result in run_units(stage, units[first : first + 3]):
                assert isinstance(result, Record)
                append(result)
