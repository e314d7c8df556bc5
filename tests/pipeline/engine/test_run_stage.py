"""Runs a stage that writes small files, and checks what the engine promises of every stage."""

import os
import subprocess
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsnn.errors import RunError
from avsnn.pipeline.engine.journal import Failure, StageSummary
from avsnn.pipeline.engine.lock import lock_folder
from avsnn.pipeline.engine.plan import plan
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.engine.run_stage import run_stage
from avsnn.pipeline.engine.stage import Outcome, Stage, Unit


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
