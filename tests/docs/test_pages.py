"""Does what the pages tell a reader to do, and compares what the pages say with the code."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from avsnn.models.energy import count_operations
from avsnn.models.methods import METHODS
from avsnn.models.zoo import ModelSettings, build
from avsnn.pipeline.runs.train_settings import TrainSettings
from tests.conftest import PROJECT, Command
from tests.plugin_file import forgotten_plugins, write_plugin

PAGES = ["README.md", "CONTRIBUTING.md"]
PAGES += sorted(f"docs/{path.name}" for path in (PROJECT / "docs").glob("*.md"))

TINY = ["--set", "model.channels=16", "--set", "epochs=1", "--set", "batch_size=16"]
TINY += ["--set", "data.size=32"]


def code_blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (PROJECT / page).read_text(), re.DOTALL)


def test_the_page_on_fusion_methods_works_from_the_first_line_to_the_last(
    avsnn: Command, small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "docs/add-a-fusion-method.md"
    write_plugin(tmp_path / "my_fusion.py")
    for number, name in enumerate(("my_surrogate.py", "my_strategy.py"), start=1):
        (tmp_path / name).write_text(code_blocks(page, "python")[number])
    (tmp_path / "data").symlink_to(small_demo)
    for line in "".join(code_blocks(page, "sh")).splitlines():
        words = shlex.split(line)
        if words[0] == "export":
            monkeypatch.setenv(*words[1].split("="))
            continue
        done = avsnn(*words[1:], *(TINY if words[1] == "train" else []))
        assert done.returncode == 0, done.stderr
    assert "McNemar" in (tmp_path / "report.html").read_text()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    with forgotten_plugins():
        exec(code_blocks(page, "python")[3], found)  # noqa: S102 - the page says to run this
        assert type(found["run"].network.fusion).__name__ == "MeanExchange"
    assert found["network"].fusion.share[0].item() == pytest.approx(0.1)


def test_the_page_on_fusion_methods_shows_the_sentence_of_a_mistake(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    write_plugin(
        tmp_path / "my_fusion.py",
        old="audio + self.share * visual.mean(dim=3, keepdim=True)",
        new="audio.mean(dim=3)",
    )
    words = ["--plugin", "my_fusion.py", "--set", "model.method=mean-exchange"]
    done = avsnn("train", "demo", *words, "--root", small_demo)
    assert done.returncode == 2
    sentence = done.stderr.removeprefix("avsnn: ").strip().removesuffix(".")
    page = " ".join((PROJECT / "docs/add-a-fusion-method.md").read_text().split())
    assert sentence in page


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


def test_the_commands_of_the_page_on_sweeps_fill_their_tables(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(small_demo)
    table, _, compared = code_blocks("docs/sweeps.md", "yaml")
    (tmp_path / "own.yaml").write_text(table)
    (tmp_path / "compared.yaml").write_text(compared)
    planned = avsnn("reproduce", "compared.yaml", "--dataset", "demo", "--dry-run")
    assert "12 runs of 12 to do." in planned.stdout
    for line in "".join(code_blocks("docs/sweeps.md", "sh")).splitlines():
        # Another test trains in child processes, whose start takes longer than these trainings.
        command, _, target = line.replace("--jobs 2", "--jobs 1").partition(" > ")
        if command == "sh runs.sh":
            emitted = (tmp_path / "runs.sh").read_text().splitlines()
            commands = [part for words in emitted for part in words.split(" && ")]
            # The first table has trained the row s-cmrl with seed 2 already.
            assert len(commands) == 2 * 2
        else:
            commands = [shlex.join([*shlex.split(command), *TINY])]
        for words in commands:
            done = avsnn(*shlex.split(words)[1:])
            assert done.returncode == 0, done.stderr
        if target:
            (tmp_path / target).write_text(done.stdout)
    # The last command found what the emitted commands had trained.
    assert done.stderr == ""
    found = json.loads((tmp_path / "runs" / "tables" / "own-demo.json").read_text())["lines"]
    assert [line["name"] for line in found] == ["s-cmrl", "no residual", "half"]
    for line in found:
        report = json.loads((tmp_path / line["runs"]["2"] / "report" / "test.json").read_text())
        assert line["top1"]["2"] == 100 * report["top1"]
        # One small epoch teaches nothing.
        assert line["at_chance"] == [2]


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
    row = re.compile(
        r"^\| `([\w-]+)`(?: `model\.(\w+)=(\w+)`)? \|.*\| ([\d,]+) \| ([\d.]+) \|$", re.M
    )
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
