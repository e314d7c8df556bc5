"""Does what the pages tell a reader to do, and compares what the pages say with the code."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import indent

import cv2
import numpy as np
import pytest
import torch
import yaml

from avsnn.models.energy import count_operations
from avsnn.models.methods import METHODS
from avsnn.models.zoo import ModelSettings, build
from avsnn.pipeline.runs.train_settings import TrainSettings
from tests.conftest import ALONE, ONE_SMALL_EPOCH, PROJECT, SMALL_SHARDS, Command
from tests.warm import Warm

PAGES = ["README.md", "CONTRIBUTING.md"]
PAGES += sorted(f"docs/{path.name}" for path in (PROJECT / "docs").glob("*.md"))

# Blocks of commands that are not run page by page, each with the reason, by their first words; an
# empty text stands for all blocks of a page.
NOT_RUN = {
    ("README.md", "python3 -m venv .venv && source"): "installs avsnn from a registry",
    ("README.md", "python3 -m venv .venv && .venv"): "installs avsnn and runs the tests: .ci/run",
    ("README.md", "avsnn datasets new clips"): "tests/docs/test_own_data.py runs the commands",
    ("README.md", "avsnn reproduce methods"): "18 trainings; tests/e2e/test_reproduce.py has fewer",
    ("CONTRIBUTING.md", ".venv/bin/pytest"): "runs the tests and the checks of the project",
    ("docs/add-a-fusion-method.md", ""): "another test of this file writes the method first",
    ("docs/cluster.md", ""): "needs Slurm, Kubernetes, a Dask cluster or a bucket",
    ("docs/events.md", "AVSNN_DATASETS=my-folder"): "needs the recordings of the reader",
    ("docs/methods.md", "avsnn reproduce alpha"): "downloads 3 GB and trains for days",
    ("docs/results.md", "avsnn prepare av-digits"): "downloads 6,000 files",
}

TINY = ["--set", "model.channels=16", "--set", "epochs=1", "--set", "batch_size=16"]
TINY += ["--set", "data.size=32"]


def code_blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (PROJECT / page).read_text(), re.DOTALL)


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
    assert not [block for block in code_blocks(page, "") if re.search("^avsnn ", block, re.M)]


def test_the_program_on_files_reads_shards_and_caches_without_avsnn(
    small_demo: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(small_demo)
    (program,) = code_blocks("docs/formats.md", "python")
    assert "avsnn" not in program
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "bytes of FLAC" in done.stdout
    assert "(2, 3, 96, 96)" in done.stdout


def test_every_setting_of_the_table_of_published_behaviour_exists() -> None:
    page = (PROJECT / "docs" / "methods.md").read_text()
    table = page[page.index("| published behaviour |") : page.index("Beyond the published neuron")]
    keys = re.findall(r"`([\w.]+)`", table)
    assert len(keys) > 10
    for key in keys:
        settings = TrainSettings
        *groups, name = key.split(".")
        for group in groups:
            settings = settings.model_fields[group].annotation
        assert name in settings.model_fields, key


def test_the_readme_cites_the_paper_and_the_software_as_the_citation_file_does() -> None:
    (entries,) = code_blocks("README.md", "bibtex")
    facts = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    paper = facts["preferred-citation"]
    authors = [f"{one['family-names']}, {one['given-names']}" for one in paper["authors"]]
    text = " ".join(entries.split())
    assert f"title = {{{paper['title']}}}" in text
    assert f"author = {{{' and '.join(authors)}}}" in text
    assert paper["identifiers"][0]["value"] in text
    assert f"year = {{{paper['year']}}}" in text
    assert f"version = {{{facts['version']}}}" in text
    assert facts["authors"][0]["name"] in text


def test_the_fusion_method_of_the_page_trains_with_the_command(
    small_demo: Path, tmp_path: Path
) -> None:
    page = "docs/add-a-fusion-method.md"
    (shell,) = code_blocks(page, "sh")
    words = [*shlex.split(shell), *TINY, "--root", str(small_demo), "--run", "r"]
    program = [
        *code_blocks(page, "python"),
        f"import sys; sys.argv = {words!r}",
        "from avsnn.cli.main import main; main()",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mean-exchange with" in done.stderr
    assert (tmp_path / "r" / "checkpoints" / "best.safetensors").exists()


def test_the_code_of_the_page_on_python_runs(
    small_demo: Path, small_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(small_demo)
    shutil.copytree(small_run, tmp_path / "runs" / "demo")
    program = "\n".join(code_blocks("docs/api.md", "python"))
    # Each video of the demo is a clip together with its sound.
    program += "assert not any(one.missing for one in predictions)\n"
    # Worker processes of `predict` import the main module, which must not start them again.
    (tmp_path / "page.py").write_text(f"def main():\n{indent(program, '    ')}\n\n" + MAIN)
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "torch.Size([2, 6])" in done.stdout


MAIN = "if __name__ == '__main__':\n    main()\n"


def test_the_programs_of_the_export_page_load_what_the_command_wrote(
    avsnn: Command, small_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copytree(small_run, tmp_path / "runs" / "demo")
    for kind in ("onnx", "torchscript", "safetensors", "nir", "huggingface"):
        done = avsnn("export", "runs/demo", "--format", kind)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    program = "import torch\ntorch.jit.set_fusion_strategy([('STATIC', 0)])\n"
    program += "audio, visual = torch.zeros(2, 1, 64, 64), torch.zeros(2, 3, 64, 64)\n"
    for block in code_blocks("docs/export.md", "python"):
        program += block + "\nassert 'logits' not in dir() or logits.shape == (2, 6)\n"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_the_extra_export_brings_every_package_that_the_export_page_imports() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    needs = project["dependencies"] + project["optional-dependencies"]["export"]
    brought = {re.split(r"[^\w-]", need, maxsplit=1)[0] for need in needs}
    program = "\n".join(code_blocks("docs/export.md", "python"))
    imported = set(re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE))
    assert imported - {"avsnn"} <= brought


@pytest.mark.parametrize("method", METHODS)
def test_every_registered_method_trains_and_is_evaluated_with_the_command(
    avsnn: Command, small_demo: Path, method: str
) -> None:
    chosen = ["--set", f"model.method={method}", "--root", small_demo, "--run", "r"]
    trained = avsnn("train", "demo", *TINY, *chosen)
    assert trained.returncode == 0, trained.stderr
    measured = avsnn("evaluate", "r", "--json")
    assert measured.returncode == 0, measured.stderr
    assert f'"method": "{method}"' in measured.stdout


def test_the_architecture_page_names_every_module_at_its_place() -> None:
    page = (PROJECT / "docs" / "ARCHITECTURE.md").read_text()
    folders, named = [], []
    for line in re.findall(r"^avsnn/\n(.*?)^```", page, re.DOTALL | re.M)[0].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, about = line.split(maxsplit=1)
        assert about, line
        del folders[depth - 1 :]
        if name.endswith("/"):
            folders.append(name)
        else:
            named.append("".join([*folders, name]))
    package = PROJECT / "avsnn"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert sorted(named) == sorted(m for m in modules if not m.endswith("__init__.py"))


@pytest.mark.parametrize("page", PAGES)
def test_every_local_link_of_a_page_has_its_file(page: str) -> None:
    text = (PROJECT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert ((PROJECT / page).parent / target).exists(), target


def test_the_table_of_methods_holds_the_parameters_and_operations_that_the_code_counts() -> None:
    row = re.compile(r"^\| `([\w-]+)`(?: `(\w+)=(\w+)`)? \|.*\| ([\d,]+) \| ([\d.]+) \|$", re.M)
    rows = row.findall((PROJECT / "docs" / "methods.md").read_text())
    assert {name for name, *_ in rows} == set(METHODS)
    audio, visual = torch.zeros(1, 1, 128, 128), torch.zeros(1, 3, 128, 128)
    for name, key, value, parameters, operations in rows:
        changes = {key: yaml.safe_load(value)} if key else {}
        model = build(ModelSettings(method=name, **changes), classes=6, tokens=64)
        counted = count_operations(model, audio, visual)
        assert (f"{counted.parameters:,}", f"{counted.dense / 1e9:.3f}") == (parameters, operations)


def test_the_program_on_training_uses_a_converted_checkpoint(
    avsnn: Command, tmp_path: Path, shared_data: Path
) -> None:
    recorded = np.load(shared_data.parent / "golden" / "spatialtemporal.npz")
    authors_state = {
        k[3:]: torch.from_numpy(recorded[k]) for k in recorded.files if k.startswith("sd/")
    }
    torch.save({"state_dict": authors_state}, tmp_path / "theirs.pth.tar")
    done = avsnn("convert-checkpoint", "theirs.pth.tar", "converted.safetensors")
    assert done.returncode == 0, done.stderr
    (program,) = code_blocks("docs/train.md", "python")
    program += "\nassert logits.shape == (1, 6)"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
