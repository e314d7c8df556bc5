"""Prints to streams that fail, and prints names that could be commands to a terminal."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ALONE, PROJECT, Command
from tests.warm import Warm

TINY = ["--set", "model.channels=16", "--set", "epochs=1", "--set", "batch_size=16"]
TINY += ["--set", "data.size=32"]
BRACKETS = "d[/x] [bold]b[/bold] :warning:"


def shell(
    avsnn_path: str, line: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which `avsnn` is the command; the exit code is that of the command."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line.replace('avsnn', shlex.quote(avsnn_path))}"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )


def test_brackets_in_paths_are_shown_as_they_are(avsnn: Command, tmp_path: Path) -> None:
    root = f"{BRACKETS}/data"
    words = ["prepare", "demo", "--limit", "60", "--root", root, *ALONE]
    for extra in (["--dry-run"], [], []):
        done = avsnn(*words, *extra)
        assert done.returncode == 0, done.stderr
        assert root in done.stdout
    run = f"{BRACKETS}/r[/b]"
    trained = avsnn("train", "demo", "--root", root, "--run", run, *TINY)
    assert trained.returncode == 0, trained.stderr
    assert f"next: avsnn evaluate {run}" in trained.stdout
    assert run in trained.stderr
    measured = avsnn("evaluate", run)
    assert measured.returncode == 0, measured.stderr
    assert f"report: {run}" in measured.stdout
    shown = avsnn("status", "--root", root, "--runs", Path(run).parent)
    assert shown.returncode == 0, shown.stderr
    assert "d[" in shown.stdout
    refused = avsnn("evaluate", "r[/b]")
    assert (refused.returncode, "r[/b]" in refused.stderr) == (2, True)
    damaged = avsnn("verify", "demo", "--root", root)
    assert damaged.returncode == 0, damaged.stderr


def test_escapes_and_line_breaks_in_names_do_not_reach_the_terminal(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    name = "a\x1b[31m\nb\x9b\u202ec"
    trained = avsnn("train", "demo", "--root", small_demo, "--run", name, *TINY)
    assert trained.returncode == 0, trained.stderr
    report = tmp_path / name / "report" / "test.json"
    assert avsnn("evaluate", name).returncode == 0
    recorded = json.loads(report.read_text())
    recorded["classes"][0]["name"] = name
    report.write_text(json.dumps(recorded))
    measured = avsnn("evaluate", name)
    refused = avsnn("evaluate", f"{name}-not")
    status = avsnn("status", "--root", small_demo, "--runs", ".")
    for text in (trained.stdout, trained.stderr, measured.stdout, refused.stderr, status.stdout):
        assert r"\x1b" in re.sub(r"\W*\n\W*", "", text)
        assert not re.search("[\x1b\x9b\u202e]", text), text
    assert refused.stderr.count("\n") == 1


def test_a_name_that_is_no_utf8_does_not_end_a_command(avsnn_path: str, tmp_path: Path) -> None:
    done = shell(avsnn_path, "avsnn evaluate $'caf\\xe9'", tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "caf" in done.stderr


@pytest.mark.parametrize("command", ["--help", "status --json"])
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("avsnn {} >&-", 0),
        ("avsnn {} 2>&-", 0),
        ("avsnn {} >&- 2>&- <&-", 0),
        ("avsnn {} >/dev/full", 1),
        ("avsnn {} 2>/dev/full", 0),
        ("avsnn {} >/dev/full 2>/dev/full", 1),
        ("avsnn {} | true", 0),
        ("avsnn {} 2>&1 | head -1", 0),
    ],
)
def test_a_stream_that_fails_ends_no_command_in_a_traceback(
    avsnn_path: str, tmp_path: Path, command: str, line: str, code: int
) -> None:
    done = shell(avsnn_path, line.format(command), tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    if code and "2>" not in line:
        assert "No space left on device" in done.stderr


def test_work_is_finished_although_nobody_reads_what_it_prints(
    avsnn_path: str, small_demo: Path, tmp_path: Path
) -> None:
    words = ["train", "demo", "--root", str(small_demo), "--run", "r", "--workers", "1", *TINY]
    done = shell(avsnn_path, f"avsnn {shlex.join(words)} 2>&1 | true", tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "r" / "checkpoints" / "best.safetensors").exists()
    closed = shell(avsnn_path, "avsnn prepare demo --limit 30 --workers 2 >&- 2>&-", tmp_path)
    assert closed.returncode == 0
    assert (tmp_path / "data" / "demo" / "prepared.json").exists()


def test_a_terminal_that_says_it_has_no_width_ends_no_command(
    avsnn: Command, small_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    done = avsnn("status", "--root", small_demo)
    assert done.returncode == 0, done.stderr
    assert "Show the stages" in avsnn("status", "--help").stdout


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_an_encoding_without_a_character_ends_no_command(
    small_demo: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    root = ["--root", str(small_demo)]
    warm = Warm(**environment)
    for words in (
        ["datasets"],
        ["status", *root],
        ["reproduce", "alpha", "--dataset", "demo", *root, "--dry-run"],
        ["train", "demo", *root, "--run", "r\u00e9", *TINY],
        ["evaluate", "r\u00e9"],
        ["evaluate", "r\u00e9", "--json"],
        ["evaluate", "r\u00e9x"],
    ):
        done = warm.run(words, tmp_path)
        assert done.returncode == (2 if words[-1] == "r\u00e9x" else 0), done.stderr
        assert "Traceback" not in done.stderr
    warm.close()
    assert (tmp_path / "r\u00e9" / "report" / "test.json").exists()


def test_an_error_that_nobody_foresaw_is_one_sentence_that_names_the_file_of_its_trace(
    avsnn: Command, tmp_path: Path
) -> None:
    (tmp_path / "data" / "demo").mkdir(parents=True)
    (tmp_path / "data" / "demo" / "state").write_text("a file where a folder is due")
    done = avsnn("prepare", "demo")
    assert done.returncode == 1
    assert re.match(
        r"avsnn: data/demo/state.*: (File exists|Not a directory)", done.stderr.splitlines()[-1]
    )
    trace = Path(re.findall(r"the full trace is in (\S+)\.$", done.stderr)[0])
    assert "Traceback" in trace.read_text()
    trace.unlink()


def test_a_folder_that_another_run_locks_is_exit_code_1(avsnn: Command, tmp_path: Path) -> None:
    lock = tmp_path / "data" / "demo" / ".lock"
    lock.parent.mkdir(parents=True)
    # `flock` starts `echo` when it holds the lock.
    holder = subprocess.Popen(
        ["flock", str(lock), "sh", "-c", "echo; cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    done = avsnn("prepare", "demo", "--limit", "30", *ALONE)
    holder.communicate()
    assert done.returncode == 1, done.stderr
    assert "another avsnn run is writing to" in done.stderr
