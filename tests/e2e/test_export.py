"""Exports runs with the command."""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.conftest import Command, hashes

FORMATS = {
    "torchscript": {"model.pt"},
    "safetensors": {"model.safetensors"},
    "nir": {"model.nir", "model.nir.json"},
    "huggingface": {"huggingface/README.md", "huggingface/config.json",
                    "huggingface/model.safetensors"},
}  # fmt: skip


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_run, tmp_path / "run")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_second_export_finds_the_same_bytes(avsnn: Command, run: Path, kind: str) -> None:
    done = avsnn("export", run, "--format", kind)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "input audio: batch x 1 x 64 x 64\n" in done.stdout
    before = hashes(run / "export")
    assert before.keys() == FORMATS[kind]
    again = avsnn("export", run, "--format", kind)
    assert "the same content was there before" in again.stdout
    assert hashes(run / "export") == before


def test_the_answer_as_json_describes_the_network(
    avsnn: Command, run: Path, tmp_path: Path
) -> None:
    done = avsnn("export", run, "--format", "safetensors", "--out", "a.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    audio, visual = answer["description"]["inputs"]
    assert audio["shape"] == ["batch", 1, 64, 64]
    assert visual["mean"] == [0.485, 0.456, 0.406]
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["avsnn"])
    assert facts["description"] == answer["description"]


def test_what_nir_leaves_out_is_named(avsnn: Command, run: Path) -> None:
    done = avsnn("export", run, "--format", "nir")
    assert "fusion.audio.spatial.mix: attention of 16 heads" in done.stdout
    beside = json.loads((run / "export" / "model.nir.json").read_text())
    assert not beside["complete"]
    assert len(beside["missing"]) == 6


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("run/checkpoints/best.safetensors", "beside the files of the run"),
        ("run/config.yaml", "beside the files of the run"),
        (".", "is a folder"),
        ("a-file/x", "cannot be written"),
    ],
)
def test_a_place_that_holds_something_else_is_refused(
    avsnn: Command, run: Path, out: str, message: str
) -> None:
    run.with_name("a-file").write_text("")
    before = hashes(run)
    done = avsnn("export", run, "--format", "safetensors", "--out", out)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert hashes(run) == before


@pytest.mark.parametrize("kind", ["safetensors", "nir", "huggingface"])
def test_a_place_in_no_folder_is_refused(run: Path, tmp_path: Path, kind: str) -> None:
    from avsnn.errors import UserError
    from avsnn.pipeline.export.export import export

    sentence = f"{tmp_path}/none/x: there is no folder {tmp_path}/none; make the folder first."
    with pytest.raises(UserError, match=re.escape(sentence)):
        export(run, kind=kind, out=tmp_path / "none" / "x")
    assert not (tmp_path / "none").exists()
    # An export makes its default folder, also for a name that the user chose.
    assert export(run, kind="safetensors", out=run / "export" / "a.safetensors").written


def test_a_folder_of_other_files_is_refused(avsnn: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    done = avsnn("export", run, "--format", "huggingface", "--out", "mine")
    assert done.returncode == 2
    assert "holds other files and no earlier export" in done.stderr
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"


def test_without_a_format_the_sentence_names_all_formats(avsnn: Command, run: Path) -> None:
    done = avsnn("export", run)
    assert done.returncode == 2
    assert done.stderr == (
        "avsnn: export needs --format: onnx for onnxruntime; torchscript for torch.jit.load; "
        "safetensors for avsnn; nir for neuromorphic tools; huggingface for a folder with a model "
        "card.\n"
    )
    assert "\\" not in done.stderr


def test_a_folder_that_is_no_run_is_refused(avsnn: Command, tmp_path: Path) -> None:
    done = avsnn("export", tmp_path, "--format", "onnx")
    assert done.returncode == 2
    assert "is not a run folder" in done.stderr


@pytest.mark.parametrize(
    ("kind", "package", "names"),
    [("onnx", "onnxscript", "onnx onnxscript onnxruntime"), ("nir", "nir", "nir")],
)
def test_a_missing_package_is_one_sentence_with_what_to_install(
    run: Path, kind: str, package: str, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avsnn.errors import UserError
    from avsnn.pipeline.export.export import export

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"run 'pip install {names}'"):
        export(run, kind=kind)
    assert not (run / "export").exists()


def test_an_export_needs_no_data(avsnn: Command, run: Path, tmp_path: Path) -> None:
    config = (run / "config.yaml").read_text()
    root = next(line for line in config.splitlines() if line.startswith("root: "))
    (run / "config.yaml").write_text(config.replace(root, f"root: {tmp_path / 'gone'}"))
    done = avsnn("export", run, "--format", "safetensors")
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256((run / "export" / "model.safetensors").read_bytes()).hexdigest()
    assert len(digest) == 64


def test_a_folder_that_was_cut_is_finished_and_a_foreign_model_is_kept(
    avsnn: Command, run: Path, tmp_path: Path
) -> None:
    words = ["export", run, "--format", "huggingface", "--out", "model"]
    assert avsnn(*words).returncode == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    for kept in (["model.safetensors"], ["model.safetensors", "README.md"]):
        for name in set(files) - set(kept):
            (tmp_path / "model" / name).unlink()
        assert avsnn(*words).returncode == 0
        assert {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()} == files
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    done = avsnn(*words)
    assert done.returncode == 2
    assert "holds other files and no earlier export" in done.stderr


def test_a_pipe_is_no_place_for_an_export(avsnn: Command, run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = avsnn("export", run, "--format", "safetensors", "--out", "pipe")
    assert done.returncode == 2
    assert "is no plain file" in done.stderr
