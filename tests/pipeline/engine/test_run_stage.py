"""Runs a stage that writes small files, and checks what the engine promises of every stage."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.errors import RunError
from avsnn.pipeline.engine import run_units
from avsnn.pipeline.engine.dask_executor import WorkerDiedError
from avsnn.pipeline.engine.executor import tasks_in_flight
from avsnn.pipeline.engine.fingerprint import fingerprint, fingerprint_of
from avsnn.pipeline.engine.journal import Failure, StageSummary
from avsnn.pipeline.engine.lock import lock_folder
from avsnn.pipeline.engine.plan import plan
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.engine.run_stage import run_stage
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit, records


@dataclass(frozen=True)
class Copy(Stage):
    """Writes the text of each unit to a file; some units raise, some record failures."""

    name: ClassVar[str] = "copy"
    version: ClassVar[int] = 1

    folder: Path
    state: Path
    texts: dict[str, str]
    suffix: str = ""
    raising: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()
    ran: list[str] = field(default_factory=list)

    def settings(self) -> dict[str, Any]:
        return {"suffix": self.suffix}

    def units(self) -> list[Unit]:
        return [
            Unit(name, (f"{name}.txt",), {"text": text})
            for name, text in sorted(self.texts.items())
        ]

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        self.ran.append(unit.name)
        (scratch / f"{unit.name}.txt").write_text(unit.inputs["text"] + self.suffix)
        if unit.name in self.raising:
            raise RuntimeError("half way")
        if unit.name in self.failing:
            return Outcome(failures=[Failure(self.name, unit.name, "is broken")])
        return Outcome(written=1)


def run(stage: Stage, workers: int = 2, **kwargs: Any) -> StageSummary:
    with ThreadPoolExecutor(workers) as pool:

        def executor() -> Executor:
            return pool

        return run_stage(stage, executor=executor, progress=NoProgress(), **kwargs)


def stage_in(folder: Path, texts: dict[str, str], **kwargs: Any) -> Copy:
    return Copy(folder / "out", folder / "state", texts, **kwargs)


def test_a_second_run_does_nothing_and_starts_no_worker(tmp_path: Path) -> None:
    run(stage_in(tmp_path, {"a": "1", "b": "2"}))
    second = stage_in(tmp_path, {"a": "1", "b": "2"})
    summary = run_stage(
        second, executor=lambda: pytest.fail("a worker was asked for"), progress=NoProgress()
    )
    assert (second.ran, summary.units_done_now, summary.written) == ([], 0, 2)


def test_only_the_unit_whose_input_changed_is_redone(tmp_path: Path) -> None:
    run(stage_in(tmp_path, {"a": "1", "b": "2"}))
    changed = stage_in(tmp_path, {"a": "1", "b": "3"})
    run(changed)
    assert changed.ran == ["b"]
    assert (tmp_path / "out" / "b.txt").read_text() == "3"


def test_a_changed_setting_makes_every_unit_stale(tmp_path: Path) -> None:
    run(stage_in(tmp_path, {"a": "1", "b": "2"}))
    assert plan(stage_in(tmp_path, {"a": "1", "b": "2"}, suffix="!")).todo_count == 2


def test_a_unit_that_raises_publishes_nothing_and_the_rest_is_done(tmp_path: Path) -> None:
    texts = {"a": "1", "b": "2", "c": "3"}
    with pytest.raises(RunError, match=r"1 of 3 units .*first: b: RuntimeError: half way"):
        run(stage_in(tmp_path, texts, raising=frozenset("b")))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.txt", "c.txt"]
    mended = stage_in(tmp_path, texts)
    run(mended)
    assert mended.ran == ["b"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: path.write_text("longer"), id="other size"),
        pytest.param(lambda path: path.write_text("9"), id="same size, other bytes"),
    ],
)
def test_a_damaged_output_is_made_again(tmp_path: Path, damage: Any) -> None:
    run(stage_in(tmp_path, {"a": "1", "b": "2"}))
    damage(tmp_path / "out" / "a.txt")
    second = stage_in(tmp_path, {"a": "1", "b": "2"})
    run(second)
    assert second.ran == ["a"]
    assert (tmp_path / "out" / "a.txt").read_text() == "1"


def test_a_copied_folder_with_new_file_times_is_still_done(tmp_path: Path) -> None:
    run(stage_in(tmp_path, {"a": "1"}))
    os.utime(tmp_path / "out" / "a.txt", (1, 1))
    assert not plan(stage_in(tmp_path, {"a": "1"})).todo_count


@given(cut=st.integers(min_value=0, max_value=400))
def test_a_journal_cut_anywhere_loses_only_the_units_that_were_cut_off(cut: int) -> None:
    with TemporaryDirectory() as folder:
        texts = {name: name for name in "abc"}
        stage = stage_in(Path(folder), texts)
        run(stage)
        whole = stage.journal.read_bytes()
        stage.journal.write_bytes(whole[: max(0, len(whole) - cut)])
        whole_lines = stage.journal.read_bytes().count(b"}\n")
        second = stage_in(Path(folder), texts)
        run(second)
        assert len(second.ran) <= 3 - whole_lines
        assert not plan(stage_in(Path(folder), texts)).todo_count


def test_a_file_without_a_record_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("1")
    stage = stage_in(tmp_path, {"a": "1"})
    run(stage)
    assert stage.ran == ["a"]


def test_files_of_units_no_longer_planned_are_removed(tmp_path: Path) -> None:
    run(stage_in(tmp_path, {"a": "1", "b": "2"}))
    run(stage_in(tmp_path, {"a": "1"}))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]


@given(
    names=st.sets(st.sampled_from("abcdefgh"), min_size=1),
    failing=st.sets(st.sampled_from("abcdefgh")),
)
def test_every_input_is_written_or_failed(names: set[str], failing: set[str]) -> None:
    with TemporaryDirectory() as folder:
        stage = stage_in(Path(folder), {n: n for n in names}, failing=frozenset(failing))
        summary = run(stage)
        assert summary.inputs == len(names)
        assert summary.failed == len(names & failing)
        published = {path.stem for path in (Path(folder) / "out").glob("*.txt")}
        assert published == names - failing


def test_retry_failed_redoes_only_what_failed(tmp_path: Path) -> None:
    texts = {"a": "1", "b": "2"}
    run(stage_in(tmp_path, texts, failing=frozenset("b")))
    plain, retrying = stage_in(tmp_path, texts), stage_in(tmp_path, texts)
    run(plain)
    summary = run(retrying, retry_failed=True)
    assert (plain.ran, retrying.ran, summary.failed) == ([], ["b"], 0)


def test_the_old_output_of_a_unit_that_now_fails_is_removed(tmp_path: Path) -> None:
    run(stage_in(tmp_path, {"a": "1", "b": "2"}))
    run(stage_in(tmp_path, {"a": "1", "b": "changed"}, failing=frozenset("b")))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]


def test_a_failed_run_leaves_no_scratch_files(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        run(stage_in(tmp_path, {"a": "1", "b": "2"}, raising=frozenset("a")))
    assert not list((tmp_path / "state" / "partial").iterdir())


@dataclass(frozen=True)
class Many(Copy):
    """Yields its units one by one, and notes how many units were out at a time."""

    batch: int = 10
    yielded: list[str] = field(default_factory=list)
    most_out: list[int] = field(default_factory=lambda: [0])

    @property
    def batch_size(self) -> int:
        return self.batch

    def units(self) -> Iterator[Unit]:  # type: ignore[override]
        for name, text in self.texts.items():
            self.yielded.append(name)
            yield Unit(name, (f"{name}.txt",), {"text": text})

    def run(self, unit: Unit, scratch: Path) -> Outcome:
        out = len(self.yielded) - len(self.texts) - len(self.ran)
        self.most_out[0] = max(out, self.most_out[0])
        return super().run(unit, scratch)


def many_in(folder: Path, count: int, **kwargs: Any) -> Many:
    texts = {f"{number:04}": str(number) for number in range(count)}
    return Many(folder / "out", folder / "state", texts, **kwargs)


def test_the_units_of_a_large_stage_are_submitted_a_few_at_a_time(tmp_path: Path) -> None:
    stage = many_in(tmp_path, 1000)
    with ThreadPoolExecutor(1) as pool:
        most = tasks_in_flight(pool, 100)
    assert run(stage, workers=1).written == 1000
    assert sorted(stage.ran) == sorted(stage.texts)
    assert stage.most_out[0] <= (most + 1) * stage.batch_size < 500


def test_a_plan_keeps_no_object_for_each_unit(tmp_path: Path) -> None:
    run(many_in(tmp_path, 3000, batch=100))
    stage = many_in(tmp_path, 3000)
    stage.yielded.extend([""] * 3000)
    gc.collect()
    tracemalloc.start()
    try:
        assert plan(stage).todo_count == 0
        assert tracemalloc.get_traced_memory()[1] < 100 * 3000 + 200_000
    finally:
        tracemalloc.stop()


def test_a_task_that_comes_back_early_loses_no_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_units, "TASK_S", 0.0)
    stage = many_in(tmp_path, 50)
    assert run(stage).written == 50
    assert sorted(stage.ran) == sorted(stage.texts)


def test_a_unit_that_kills_its_workers_is_the_only_one_that_is_not_done(tmp_path: Path) -> None:
    class Deadly(ThreadPoolExecutor):
        """Loses every task in which the unit 0007 is."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if "0007" not in [unit.name for unit in args[1]]:
                return super().submit(fn, *args, **kwargs)
            lost: Future[Any] = Future()
            lost.set_exception(WorkerDiedError(4))
            return lost

    with Deadly(2) as pool, pytest.raises(RunError, match=r"1 of 50 units .*first: 0007: 4 worker"):
        run_stage(many_in(tmp_path, 50), executor=lambda: pool, progress=NoProgress())
    assert len(records(many_in(tmp_path, 50))) == 49


def test_a_kill_before_a_batch_is_recorded_loses_nothing(tmp_path: Path) -> None:
    killed = multiprocessing.get_context("spawn").Process(
        target=die_before_a_record, args=(tmp_path,)
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    published = {path.name for path in (tmp_path / "out").iterdir()}
    recorded = len(records(many_in(tmp_path, 50)))
    assert recorded < len(published) <= 50
    stage = many_in(tmp_path, 50)
    assert run(stage).written == 50
    assert len(stage.ran) == 50 - recorded
    assert all((tmp_path / "out" / f"{n}.txt").read_text() == t for n, t in stage.texts.items())


def die_before_a_record(folder: Path) -> None:
    """Run a stage, and kill this process when the files of the third batch are published."""

    class Deadly(ThreadPoolExecutor):
        batches = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            return super().submit(self.work, fn, *args)

        def work(self, fn: Any, *args: Any) -> Any:
            results = fn(*args)
            Deadly.batches += 1
            if Deadly.batches == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return results

    with Deadly(1) as pool:
        run_stage(many_in(folder, 50), executor=lambda: pool, progress=NoProgress())


def test_a_second_run_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        program = (
            "import sys; from pathlib import Path\n"
            "from avsnn.pipeline.engine.lock import lock_folder\n"
            "with lock_folder(Path(sys.argv[1])): pass"
        )
        other = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert "another avsnn run is writing" in other.stderr
    with lock_folder(tmp_path):
        pass


def test_a_full_disk_is_an_error_that_loses_no_finished_unit(tiny_disk: Path) -> None:
    texts = {"a": "small", "b": "x" * 2_000_000}
    with pytest.raises(RunError, match="is full"):
        run(stage_in(tiny_disk, texts), workers=1)
    smaller = stage_in(tiny_disk, {"a": "small", "b": "fits now"})
    run(smaller)
    assert smaller.ran == ["b"]


def test_a_full_disk_at_a_record_of_the_journal_is_a_full_disk_too(tiny_disk: Path) -> None:
    journal = tiny_disk / "state" / "out.jsonl"

    @dataclass(frozen=True)
    class FillsTheDisk(Copy):
        """Fills the disk before the first record is written, and leaves the disk full."""

        def run(self, unit: Unit, scratch: Path) -> Outcome:
            outcome = super().run(unit, scratch)
            with suppress(OSError), (tiny_disk / "filler").open("ab", buffering=0) as filler:
                while filler.write(b"x" * 4096):
                    pass
            return outcome

    stage = FillsTheDisk(
        folder=tiny_disk / "out", state=tiny_disk / "state", texts={"a": "x" * 5000}
    )
    with pytest.raises(RunError, match="is full"):
        run(stage)
    assert journal.read_text() == ""
    (tiny_disk / "filler").unlink()
    assert run(stage_in(tiny_disk, stage.texts)).written == 1


@given(st.lists(st.one_of(st.text(), st.none(), st.lists(st.integers()))))
def test_the_fingerprint_of_a_list_is_computed_item_by_item(items: list[Any]) -> None:
    assert fingerprint_of(iter(items)) == fingerprint(items)
