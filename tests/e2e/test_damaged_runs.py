"""Damages files of a run folder; a command must end in one sentence or go on, and lose nothing."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from avsnn.pipeline.runs.metrics import read_metrics
from tests.conftest import Command, hashes, remains_of_a_dead_writer
from tests.e2e.test_kill import curve
from tests.warm import Warm

TINY = ["--set", "model.channels=16", "--set", "epochs=3", "--set", "batch_size=16"]
TINY += ["--set", "data.size=32"]


@pytest.fixture(scope="module")
def finished(warm: Warm, small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and evaluated run. Tests must only read this run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    words = ["train", "demo", "--root", str(small_demo), "--run", str(folder), *TINY]
    for command in (words, ["evaluate", str(folder)]):
        done = warm.run(command, folder.parent)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged, in the folder `runs`."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "damaged"))


def assert_one_sentence(done: subprocess.CompletedProcess[str], code: int) -> None:
    assert done.returncode == code, done.stderr
    assert re.fullmatch(r"avsnn: [^\n]+\n", done.stderr), done.stderr


def without_key(key: str) -> Callable[[bytes], bytes]:
    def drop(content: bytes) -> bytes:
        *kept, last = content.splitlines(keepends=True)
        values = {name: value for name, value in json.loads(last).items() if name != key}
        return b"".join([*kept, json.dumps(values).encode() + b"\n"])

    return drop


# The damage, and how many epochs can still be read.
METRICS_DAMAGE: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "empty": (lambda content: b"", 0),
    "cut in the last line": (lambda content: content[:-100], 2),
    "cut in the first line": (lambda content: content[:100], 0),
    "a line that is a number": (lambda content: content.replace(b"\n", b"\n7\n", 1), 1),
    "a line that is null": (lambda content: b"null\n" + content, 0),
    "a line that is missing": (lambda content: content.split(b"\n", 1)[1], 0),
    "a byte that is no UTF-8": (
        lambda content: content.replace(b'"epoch": 3', b'"epoch\xff": 3'),
        2,
    ),
    "brackets nested deep": (lambda content: content + b"[" * 100_000, 3),
    "no accuracy of the selection": (without_key("val_accuracy"), 2),
    "no loss": (without_key("loss"), 2),
    "no spike rates": (without_key("spike_rates"), 2),
}


@pytest.mark.parametrize(("damage", "left"), METRICS_DAMAGE.values(), ids=METRICS_DAMAGE)
def test_damaged_metrics_hide_no_other_file_and_resume_goes_on_from_the_last_epoch_with_a_line(
    avsnn: Command,
    small_demo: Path,
    finished: Path,
    run: Path,
    damage: Callable[[bytes], bytes],
    left: int,
) -> None:
    path = run / "metrics.jsonl"
    path.write_bytes(damaged := damage(path.read_bytes()))
    shown = json.loads(avsnn("status", "--root", small_demo, "--json").stdout)["runs"]
    assert [row["epochs"] for row in shown] == [left]
    assert "metrics.jsonl" in shown[0]["unreadable"]
    (run / "report" / "test.json").unlink()
    measured = avsnn("evaluate", run, "--json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["clips"] == 18
    words = ["train", "demo", "--root", small_demo, "--run", run, *TINY]
    resumed = avsnn(*words, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert curve(run) == curve(finished)
    for name in ("best", "last"):
        weights = Path("checkpoints", f"{name}.safetensors")
        assert (run / weights).read_bytes() == (finished / weights).read_bytes()
    if left < 3:
        assert (run / "metrics.jsonl.damaged").read_bytes() == damaged


def test_the_evaluation_of_damaged_metrics_says_so_on_the_page(avsnn: Command, run: Path) -> None:
    (run / "metrics.jsonl").write_bytes(b"")
    assert avsnn("evaluate", run).returncode == 0
    assert "metrics.jsonl" in (run / "report" / "report.html").read_text()


REPORT_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:200],
    "null": lambda content: b"null\n",
    "of an old version": lambda content: b'{"top1": 0.5, "split": "test"}',
    "classes of another version": lambda content: content.replace(b'"precision"', b'"exact"'),
    "a matrix of another size": lambda content: re.sub(
        rb'"confusion": \[.*\]', b'"confusion": [[1]]', content, flags=re.DOTALL
    ),
}


@pytest.mark.parametrize("damage", REPORT_DAMAGE.values(), ids=REPORT_DAMAGE)
def test_a_damaged_report_is_named_by_status_and_measured_again_by_evaluate(
    avsnn: Command, small_demo: Path, finished: Path, run: Path, damage: Callable[[bytes], bytes]
) -> None:
    report = run / "report" / "test.json"
    report.write_bytes(damage(report.read_bytes()))
    (row,) = json.loads(avsnn("status", "--root", small_demo, "--json").stdout)["runs"]
    assert (row["epochs"], row["test_top1"]) == (3, None)
    assert "test.json" in row["unreadable"]
    assert "report/test.json is damaged" in avsnn("status", "--root", small_demo).stdout
    done = avsnn("evaluate", run)
    assert done.returncode == 0, done.stderr
    measured, before = (json.loads((r / "report/test.json").read_text()) for r in (run, finished))
    assert measured["confusion"] == before["confusion"]


def laughs(content: str) -> str:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join(["l0: &l0 [lol]", *levels, content])


CONFIG_DAMAGE: dict[str, Callable[[str], str]] = {
    "empty": lambda content: "",
    "cut": lambda content: content[:1500],
    "a list": lambda content: "- 1\n",
    "no YAML": lambda content: "a: [",
    "nested very deep": lambda content: "a: " + "[" * 50_000,
    "nested very deep in blocks": lambda content: "".join(" " * n + "a:\n" for n in range(1500)),
    "anchors that multiply": laughs,
    "an unknown method": lambda content: content.replace("method: s-cmrl", "method: nope"),
    "an unknown split": lambda content: content.replace("split: null", "split: nope"),
    "an unknown data set": lambda content: content.replace("dataset: demo", "dataset: nope"),
    "no fingerprint": lambda content: content.replace("fingerprint:", "print:", 1),
    "a number of 5,000 digits": lambda content: content + "more: " + "9" * 5000 + "\n",
    "an empty number": lambda content: content + 'more: !!int ""\n',
    "a tag of Python": lambda content: content + "more: !!python/name:os.system\n",
}


@pytest.mark.parametrize("damage", CONFIG_DAMAGE.values(), ids=CONFIG_DAMAGE)
def test_a_damaged_config_is_one_sentence_and_hides_no_other_run(
    avsnn: Command, small_demo: Path, finished: Path, run: Path, damage: Callable[[str], str]
) -> None:
    shutil.copytree(finished, run.parent / "whole")
    config = run / "config.yaml"
    config.write_text(damage(config.read_text()))
    before = hashes(run)
    for words in (
        ["evaluate", run],
        ["train", "demo", "--root", small_demo, "--run", run, "--resume", *TINY],
    ):
        done = avsnn(*words)
        assert_one_sentence(done, 2)
        assert len(done.stderr) < 1000
    assert hashes(run) == before
    shown = avsnn("status", "--root", small_demo, "--json")
    assert shown.returncode == 0, shown.stderr
    bad, whole = json.loads(shown.stdout)["runs"]
    assert bad["unreadable"]
    assert (whole["epochs"], whole["unreadable"]) == (3, "")


def test_a_config_that_the_machine_cannot_read_is_one_sentence(
    avsnn: Command, small_demo: Path, run: Path
) -> None:
    (run / "config.yaml").unlink()
    # Reading this file gives an I/O error.
    (run / "config.yaml").symlink_to("/proc/self/mem")
    assert_one_sentence(avsnn("evaluate", run), 2)
    (row,) = json.loads(avsnn("status", "--root", small_demo, "--json").stdout)["runs"]
    assert "Input/output error" in row["unreadable"]


def test_reproduce_trains_again_what_damaged_metrics_and_reports_no_longer_hold(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    words = ["reproduce", "alpha", "--dataset", "demo", "--seeds", "1", "--root", small_demo]
    words += [*TINY, "--set", "epochs=1", "--json"]
    first = avsnn(*words)
    assert first.returncode == 0, first.stderr
    one, other, *_ = sorted((tmp_path / "runs").glob("demo-*"))
    (one / "metrics.jsonl").write_bytes(b'{"epoch"')
    (other / "report" / "test.json").write_bytes(b"null")
    planned = avsnn(*words, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    again = avsnn(*words)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert len(read_metrics(one)) == 1


def test_an_unreadable_resume_point_is_no_damage_and_stays_where_it_is(
    avsnn: Command, small_demo: Path, finished: Path, run: Path
) -> None:
    (run / "metrics.jsonl").write_bytes(b"".join(lines_of(run)[:2]))
    point = run / "checkpoints" / "resume-00002-0000000.safetensors"
    kept = point.rename(run / "kept")
    # Reading this file gives an I/O error.
    point.symlink_to("/proc/self/mem")
    words = ["train", "demo", "--root", small_demo, "--run", run, "--resume", *TINY]
    refused = avsnn(*words)
    assert refused.returncode == 1, refused.stderr
    assert "cannot be read: Input/output error" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert point.is_symlink()
    kept.rename(point)
    resumed = avsnn(*words)
    assert resumed.returncode == 0, resumed.stderr
    assert curve(run) == curve(finished)


def test_an_unreadable_best_checkpoint_is_not_called_damaged(avsnn: Command, run: Path) -> None:
    best = run / "checkpoints" / "best.safetensors"
    best.unlink()
    best.symlink_to("/proc/self/mem")
    done = avsnn("evaluate", run)
    assert_one_sentence(done, 1)
    assert "cannot be read: Input/output error" in done.stderr


def test_a_resume_point_of_another_network_is_one_sentence(
    avsnn: Command, small_demo: Path, finished: Path, run: Path
) -> None:
    (run / "metrics.jsonl").write_bytes(b"".join(lines_of(run)[:2]))
    point = run / "checkpoints" / "resume-00002-0000000.safetensors"
    shutil.copy(run / "checkpoints" / "last.safetensors", point)
    before = hashes(run / "checkpoints")
    done = avsnn("train", "demo", "--root", small_demo, "--run", run, "--resume", *TINY)
    assert done.returncode == 2, done.stderr
    assert "does not fit this run" in done.stderr
    assert "Traceback" not in done.stderr
    after = hashes(run / "checkpoints")
    assert after[point.name] == before[point.name]


def lines_of(run: Path) -> list[bytes]:
    return (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)


def test_evaluate_removes_the_unfinished_files_of_killed_evaluations(
    avsnn: Command, run: Path
) -> None:
    dead = remains_of_a_dead_writer(run / "report", "report.html")
    assert avsnn("evaluate", run).returncode == 0
    assert not dead.exists()


def test_an_evaluation_that_cannot_fit_in_memory_is_refused(avsnn: Command, run: Path) -> None:
    config = run / "config.yaml"
    text = config.read_text().replace("steps: 4", "steps: 1024").replace("size: 32", "size: 4096")
    config.write_text(text)
    (run / "report" / "test.json").unlink()
    done = avsnn("evaluate", run)
    assert_one_sentence(done, 2)
    assert "needs more than" in done.stderr
    assert "GB of memory, and cpu has" in done.stderr


def test_a_folder_that_nobody_may_enter_is_named_by_status(
    avsnn_path: str, small_demo: Path, finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "closed").mkdir(parents=True)
    (tmp_path / "runs" / "whole").symlink_to(finished)
    (tmp_path / "runs" / "closed").chmod(0)
    # Without these rights, root is refused like any other user.
    words = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", avsnn_path, "status"]
    done = subprocess.run(
        [*words, "--root", str(small_demo), "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    closed, whole = json.loads(done.stdout)["runs"]
    assert "closed/config.yaml cannot be read: Permission denied" in closed["unreadable"]
    assert whole["epochs"] == 3


def test_an_evaluation_of_another_epoch_than_the_best_is_not_shown_as_the_result_of_the_run(
    avsnn: Command, small_demo: Path, run: Path
) -> None:
    report = run / "report" / "test.json"
    result = json.loads(report.read_text())
    # The run went on after this evaluation, and found a better epoch.
    report.write_text(json.dumps(result | {"epoch": 99}))
    (row,) = json.loads(avsnn("status", "--root", small_demo, "--json").stdout)["runs"]
    assert row["test_top1"] is None


def test_a_finished_run_without_its_best_weights_is_told_what_helps(
    avsnn: Command, run: Path
) -> None:
    (run / "checkpoints" / "best.safetensors").unlink()
    done = avsnn("evaluate", run)
    assert_one_sentence(done, 2)
    assert "restore its checkpoints/best.safetensors" in done.stderr
