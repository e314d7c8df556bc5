"""Roots as people have them: read-only, broken, in use, of odd names; each is one sentence."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avsnn.errors import RunError
from avsnn.pipeline.engine.lock import lock_folder, require_no_writer
from tests.conftest import ALONE, PROJECT, SMALL_SHARDS, Command

PREPARE = ("prepare", "demo", "--limit", "72", *SMALL_SHARDS, *ALONE)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    if subprocess.run(["mount", "--bind", folder, folder], check=False).returncode:
        pytest.skip("mounting needs root")
    subprocess.run(["mount", "-o", "remount,ro,bind", folder, folder], check=True)
    yield
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def read_only_root(small_demo: Path, tmp_path: Path) -> Iterator[Path]:
    """A finished data set on a read-only disk."""
    root = tmp_path / "data"
    shutil.copytree(small_demo, root)
    with read_only(root):
        yield root


@pytest.mark.parametrize(
    "words", [("verify", "demo"), ("status",), ("datasets", "check", "demo"), PREPARE]
)
def test_a_finished_data_set_on_a_read_only_disk_can_be_used(
    avsnn: Command, read_only_root: Path, words: tuple[str, ...]
) -> None:
    done = avsnn(*words, "--root", read_only_root)
    assert done.returncode == 0, done.stderr


def test_a_run_on_a_read_only_disk_can_be_evaluated(
    avsnn: Command, small_demo: Path, small_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    shutil.rmtree(run / "report", ignore_errors=True)
    with read_only(run):
        first = avsnn("evaluate", run, "--root", small_demo)
    assert first.returncode == 0, first.stderr
    assert "report: none, because the run folder is read-only" in first.stdout
    assert avsnn("evaluate", run, "--root", small_demo).returncode == 0
    with read_only(run):
        again = avsnn("evaluate", run, "--root", small_demo)
    assert again.returncode == 0, again.stderr
    assert "was measured before" in again.stdout


def test_new_work_on_a_read_only_disk_is_one_sentence(avsnn: Command, read_only_root: Path) -> None:
    done = avsnn("prepare", "demo", "--limit", "6", *ALONE, "--root", read_only_root)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert "cannot write to" in sentence


def file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


BROKEN: dict[str, Callable[[Path], object]] = {
    "a dangling link": lambda root: root.symlink_to("gone/away"),
    "a loop of links": lambda root: root.symlink_to(root.name),
    "a file": file,
    "a file for the data set": lambda root: file(root / "demo"),
    "a folder for the lock": lambda root: (root / "demo" / ".lock").mkdir(parents=True),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_root_is_one_sentence(avsnn: Command, tmp_path: Path, kind: str) -> None:
    BROKEN[kind](tmp_path / "data")
    done = avsnn("prepare", "demo", "--limit", "6", *ALONE)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "Choose another" in done.stderr


def test_a_root_whose_name_is_too_long_is_one_sentence(avsnn: Command) -> None:
    done = avsnn("prepare", "demo", "--limit", "6", *ALONE, "--root", "x" * 300)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1


def test_readers_share_a_folder_and_wait_for_a_writer(tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(RunError, match="another avsnn run is writing"):
        require_no_writer(tmp_path)
    require_no_writer(tmp_path)
    (tmp_path / ".lock").unlink(missing_ok=True)
    require_no_writer(tmp_path)
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("name", ["clips-*.jsonl", "request.json"])
def test_a_folder_in_place_of_a_file_is_one_sentence(
    avsnn: Command, small_demo: Path, tmp_path: Path, name: str
) -> None:
    root = Path(shutil.copytree(small_demo, tmp_path / "data"))
    (path,) = (root / "demo" / "state").glob(name)
    path.unlink()
    path.mkdir()
    for command in (PREPARE, ("verify", "demo")):
        done = avsnn(*command)
        assert done.returncode == 2, done.stderr
        assert f"{path.name} cannot be read: Is a directory" in done.stderr.splitlines()[-1]
    assert avsnn("status").returncode == 0


def test_a_root_with_a_colon_works(avsnn: Command, small_demo: Path, tmp_path: Path) -> None:
    done = avsnn("prepare", "demo", "--limit", "6", *ALONE, "--root", "run:1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["root", "source", "current folder"])
def test_a_name_that_is_no_text_is_one_sentence_before_any_work(
    avsnn_path: str, tmp_path: Path, place: str
) -> None:
    folder = tmp_path / os.fsdecode(b"folder-\xff")
    folder.mkdir()
    words = {"root": ["--root", folder], "source": ["--source", folder]}.get(place, [])
    done = subprocess.run(
        [avsnn_path, "prepare", "demo", "--limit", "6", *ALONE, *words],
        cwd=folder if place == "current folder" else tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"avsnn: .*folder-\\udcff holds bytes that are no text.*\n", done.stderr)
    assert not list(folder.iterdir())


def test_a_current_folder_that_was_removed_is_one_sentence(
    avsnn_path: str, small_demo: Path, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    words = shlex.join([avsnn_path, "status", "--root", str(small_demo)])
    done = subprocess.run(
        ["sh", "-c", f"rmdir {gone}; exec {words}"],
        cwd=gone,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"avsnn: the current folder cannot be used: .*\n", done.stderr)


def test_verify_and_a_finished_prepare_share_a_data_set(
    avsnn_path: str, small_demo: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(small_demo, tmp_path / "data"))
    commands = [[*PREPARE]] * 6 + [["verify", "demo"]] * 2
    started = [
        subprocess.Popen(
            [avsnn_path, *words, "--root", str(root)],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in commands
    ]
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * 8, outputs
    assert all("nothing to do" in output for output in outputs[:6])
    assert all("all as they were written" in output for output in outputs[6:])
