"""Runs the commands of every page in the order of the page."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import cv2
import pytest

from tests.conftest import ALONE, ONE_SMALL_EPOCH, PROJECT, SMALL_SHARDS
from tests.docs.test_pages import PAGES, code_blocks
from tests.warm import Warm

# Blocks of commands that are not run page by page, each with the reason, by their first words; an
# empty text stands for all blocks of a page.
NOT_RUN = {
    ("README.md", "python3 -m venv .venv && . "): "installs avsnn from a registry",
    ("README.md", "python3 -m venv .venv && .venv"): "installs avsnn and runs the tests: .ci/run",
    ("README.md", "avsnn datasets new clips"): "tests/docs/test_own_data.py runs the commands",
    ("README.md", "avsnn reproduce methods"): "18 trainings; tests/e2e/test_reproduce.py has fewer",
    ("CONTRIBUTING.md", ".venv/bin/pytest"): "runs the tests and the checks of the project",
    ("docs/add-a-fusion-method.md", ""): "tests/docs/test_pages.py runs the commands",
    ("docs/add-a-reader.md", ""): "tests/docs/test_reader_page.py runs the commands",
    ("docs/cluster.md", ""): "needs Slurm, Kubernetes, a Dask cluster or a bucket",
    ("docs/events.md", "AVSNN_DATASETS=my-folder"): "needs the recordings of the reader",
    ("docs/methods.md", "avsnn reproduce alpha"): "downloads 3 GB and trains for days",
    ("docs/stores.md", ""): "needs a bucket; tests/e2e/test_s3.py runs the commands",
    ("docs/sweeps.md", ""): "tests/docs/test_pages.py writes the tables and runs the commands",
    ("docs/own-data.md", ""): "tests/docs/test_own_data.py runs the commands",
    ("docs/ravdess.md", "avsnn prepare ravdess --limit 60"): "downloads 1.6 GB",
    ("docs/results.md", "avsnn prepare av-digits"): "downloads 6,000 files",
}


def commands(block: str) -> list[list[str]]:
    """Return the words of each command of a block, which may stand on several lines."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(one, comments=True) for line in lines for one in line.split("&&")]


def in_small(words: list[str]) -> list[str]:
    """Return a command of a page with few clips and one small epoch."""
    if words[0] == "prepare":
        # The few clips of `small_demo` are prepared with these settings.
        few = "72" if words[1] == "demo" else "36"
        return [*words, *SMALL_SHARDS, *ALONE, "--limit", few]
    if words[0] == "predict":
        return [*words, "--workers", "1"]
    return [*words, *ONE_SMALL_EPOCH] if words[0] in ("train", "reproduce") else words


@pytest.fixture
def reader(small_demo: Path, small_run: Path, tmp_path: Path) -> Path:
    """The folder of a reader: the prepared demo, a run, and clips to ask the run about."""
    folder = tmp_path / "reader"
    shutil.copytree(small_demo, folder / "data")
    shutil.copytree(small_run, folder / "runs" / "demo")
    video = min((small_demo / "demo" / "raw" / "video").glob("*.mp4"))
    sound = small_demo / "demo" / "raw" / "audio" / f"{video.stem}.wav"
    shutil.copy(video, folder / "clip.mp4")
    shutil.copy(sound, folder / "picture.wav")
    _, frame = cv2.VideoCapture(str(video)).read()
    cv2.imwrite(str(folder / "picture.png"), frame)
    (folder / "some" / "folder").mkdir(parents=True)
    shutil.copy(video, folder / "some" / "folder")
    return folder


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if code_blocks(page, "sh")])
def test_every_command_of_a_page_runs_in_the_order_of_the_page_or_has_a_reason_not_to(
    warm: Warm, reader: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [
        block
        for block in code_blocks(page, "sh")
        if not any(page == other and block.startswith(words) for other, words in NOT_RUN)
    ]
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(reader / "config"))
    if "--run runs/demo" in "".join(blocks):
        shutil.rmtree(reader / "runs" / "demo")
    for block in blocks:
        if not re.search(r"^(\w+=\S+ )*avsnn ", block, re.MULTILINE):
            subprocess.run(["bash", "-euc", block], cwd=reader, check=True)
            continue
        for words in commands(block):
            while words and (words[0] == "export" or "=" in words[0]):
                if words[0] != "export":
                    monkeypatch.setenv(*words[0].split("=", 1))
                del words[0]
            if words:
                run_command(warm, words, reader)


def run_command(warm: Warm, words: list[str], folder: Path) -> None:
    """Run one command of a page; ``> FILE`` at its end takes what the command prints."""
    assert words[0] == "avsnn", words
    words, target = (words[1:-2], words[-1]) if ">" in words else (words[1:], os.devnull)
    # A picture needs a terminal.
    run = warm.run_on_terminal if words[0] == "inspect" else warm.run
    done = run(in_small(words), folder)
    assert done.returncode == 0, (words, done.stderr)
    (folder / target).write_text(done.stdout)


def test_every_reason_not_to_run_commands_belongs_to_commands_of_a_page() -> None:
    for page, words in NOT_RUN:
        assert any(block.startswith(words) for block in code_blocks(page, "sh")), (page, words)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_are_marked_as_commands(page: str) -> None:
    # Only blocks that are marked as `sh` are run.
    blocks = re.findall(r"^```(\S*)\n(.*?)^```", (PROJECT / page).read_text(), re.M | re.S)
    assert not [text for kind, text in blocks if not kind and re.search("^avsnn ", text, re.M)]
