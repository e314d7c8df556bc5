"""What people type, and what they read: every row of ``shared/cases/typing.md``."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.conftest import SHARED, Command

PAGE = SHARED / "cases" / "typing.md"

# The answer that a row asks for, as a pattern on all that the command prints, by the words that
# name the answer on the page. Words that are missing here are looked for as they stand.
ANSWERS = {
    "--version (or prints it, exit 0)": r"avsnn \d",
    "the help, exit 0": r"Usage: avsnn",
    "the data sets that are prepared here": r"Prepared in data: demo\.",
    "--set seed=3 (or works, exit 0)": r"--set seed=3 ",
    "--set epochs=3 · optimizer.base_lr · --set batch_size=8 (or work)": r"--set (epochs=3|"
    r"optimizer\.base_lr=0\.01|batch_size=8) ",
    "the presets, nearest first": r"there are \d+, such as c.*'avsnn presets' lists all",
    "healthy": r"did you mean healthy\?",
    "s-cmrl": r"did you mean s-cmrl\?",
    "model.method": r"did you mean model\.method\?",
    "model.steps": r"did you mean model\.steps\?",
    "optimizer.base_lr": r"did you mean optimizer\.base_lr\?",
    "epochs": r"did you mean epochs\?",
    "epochs, what it must be": r"epochs cannot be .*: the value must be .*\(allowed: above 0 ",
    "works and keeps the preset's other values, exit 0": r"method: audio\n  channels: 32\n",
    "cuda, cpu; words of ours, not a library's": r"--device cannot be .*did you mean cuda\?.* cpu",
    "works, exit 0": r"next: avsnn evaluate runs/again",
    "works: two runs side by side, exit 0": r"McNemar",
    "runs/demo": r"did you mean runs/demo\?",
    "test, val, train": r"did you mean test\? there are: train, val, test",
    "what to give it": r"needs CLIP\.\.\.: videos, pictures, sounds",
    "the formats": r"needs --format: onnx .*torchscript .*safetensors .*nir .*huggingface ",
    "methods": r"did you mean methods\?",
    "the tables": r"alpha, attention, hard, methods, snr, temperature",
    "that nothing is there, and AVSNN_DATASETS or --datasets where own data are known": (
        r"no folder nowhere.*AVSNN_DATASETS"
    ),
    "which data set": r"needs DATASET: .*Prepared in data: demo\.",
}

# These rows train; the words keep the training short, or print what would be trained.
SHORTER = {
    "model={method: audio}": ["--print-config"],
    "--config runs/demo/config.yaml": ["--set", "epochs=1", "--set", "data.size=32"],
}


def read_rows() -> list[tuple[str, str]]:
    """Return every command of the page with the answer that its row asks for."""
    if not PAGE.is_file():
        return []
    rows = []
    for line in PAGE.read_text().splitlines():
        if not line.startswith("| `"):
            continue
        typed, answer = (cell.strip() for cell in line.strip("|").rsplit("|", 1))
        answer = answer.strip().replace("`", "")
        first, *others = re.findall(r"`([^`]+)`", typed)
        rows += [(command, answer) for command in (first, *(_like(first, x) for x in others))]
    return rows


def _like(first: str, other: str) -> str:
    """Return a whole command for the part of a command that a row gives for its end."""
    if other.startswith("avsnn"):
        return other
    if other.startswith("="):
        return first.rsplit("=", 1)[0] + other
    if other.startswith("--"):
        return first[: first.index(" --")] + " " + other
    return first.rsplit(" ", 1)[0] + " " + other


ROWS = read_rows()


@pytest.fixture(scope="module")
def folder(small_demo: Path, small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `demo` is prepared and one run `runs/demo` exists, as on the page."""
    folder = tmp_path_factory.mktemp("typing")
    (folder / "data").symlink_to(small_demo)
    shutil.copytree(small_run, folder / "runs" / "demo")
    return folder


def test_the_page_is_read() -> None:
    if not PAGE.is_file():
        pytest.skip(f"needs the list {PAGE}, which only developers have")
    assert len(ROWS) > 40


@pytest.mark.parametrize(("typed", "answer"), ROWS, ids=[typed for typed, _ in ROWS])
def test_what_people_type_is_answered_as_the_page_asks(
    avsnn: Command, folder: Path, typed: str, answer: str
) -> None:
    program, *words = shlex.split(typed)
    assert program == "avsnn"
    for part, more in SHORTER.items():
        if part in typed:
            words += more
    done = avsnn(*words, cwd=folder)
    wanted = ANSWERS.get(answer, re.escape(answer))
    assert re.search(wanted, done.stdout + done.stderr, re.DOTALL), done
    works = not done.returncode and "exit 0" in answer
    assert works or done.returncode == 2
    if works or answer.startswith(("works", "the help")):
        assert works, done
        return
    assert re.fullmatch(r"avsnn: [^\n]+\n", done.stderr), done.stderr
    assert len(done.stderr) < 500
