"""Makes runs from checkpoints of the authors' code, which the other commands must take."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Command, hashes
from tests.e2e.test_convert_checkpoint import GOLDEN, authors_state

WORDS = ("--dataset", "demo", "--set", "data.size=128")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A file as the authors' code saves it; its six classes are as many as those of the demo."""
    path = tmp_path / "theirs.pth.tar"
    torch.save({"state_dict": authors_state("spatialtemporal"), "epoch": 3}, path)
    return path


def test_evaluate_export_status_and_train_take_a_converted_run(
    avsnn: Command, theirs: Path, small_demo: Path, tmp_path: Path
) -> None:
    words = ("convert-checkpoint", theirs, "runs/theirs", *WORDS, "--root", small_demo)
    done = avsnn(*words)
    assert done.returncode == 0, done.stderr
    assert "s-cmrl, C = 64, 6 classes, T = 4" in done.stdout
    assert "next: avsnn evaluate runs/theirs" in done.stdout

    evaluated = avsnn("evaluate", "runs/theirs")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "epoch unknown (chosen on test)" in evaluated.stdout
    record = json.loads((tmp_path / "runs/theirs/report/test.json").read_text())
    assert any("converted from theirs.pth.tar" in sentence for sentence in record["caveats"])
    assert (tmp_path / "runs/theirs/report/report.html").exists()

    exported = avsnn("export", "runs/theirs", "--format", "torchscript")
    assert exported.returncode == 0, exported.stderr
    assert "The weights were converted from theirs.pth.tar" in exported.stdout
    program = torch.jit.load(tmp_path / "runs/theirs/export/model.pt")
    with np.load(GOLDEN / "spatialtemporal.npz") as arrays, torch.no_grad():
        audio, visual = (
            torch.from_numpy(arrays[f"{part}_i8"]) * float(arrays["input_scale"])
            for part in ("audio", "visual")
        )
        assert np.allclose(program(audio, visual), arrays["eval_logits"], atol=1e-5)

    status = avsnn("status", "--root", small_demo)
    (line,) = (line for line in status.stdout.splitlines() if line.startswith("theirs"))
    assert "converted" in line

    # A training must not overwrite the weights, also with the settings of the converted run.
    trained = avsnn(
        "train", "demo", "--root", small_demo, "--run", "runs/theirs", "--resume",
        "--set", "model.channels=64", "--set", "data.size=128", "--set", "selection=test",
    )  # fmt: skip
    assert trained.returncode == 2
    assert "its weights were converted from theirs.pth.tar" in trained.stderr


def test_the_same_again_does_nothing_and_other_content_is_refused(
    avsnn: Command, theirs: Path, small_demo: Path, tmp_path: Path
) -> None:
    words = ("convert-checkpoint", theirs, "run", *WORDS, "--root", small_demo)
    assert avsnn(*words).returncode == 0
    before = hashes(tmp_path / "run")
    again = avsnn(*words)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout
    assert hashes(tmp_path / "run") == before

    other = avsnn(*words, "--heads", "8")
    assert other.returncode == 2
    assert "model.heads 16 there, 8 here" in other.stderr
    state = authors_state("spatialtemporal")
    state["head.bias"] = state["head.bias"] + 1
    torch.save(state, theirs)
    weights = avsnn(*words)
    assert weights.returncode == 2
    assert "holds another run" in weights.stderr
    assert hashes(tmp_path / "run") == before

    # A conversion that was killed between configuration and weights is completed.
    torch.save({"state_dict": authors_state("spatialtemporal")}, theirs)
    (tmp_path / "run" / "checkpoints" / "best.safetensors").unlink()
    assert avsnn(*words).returncode == 0
    assert hashes(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dataset", "no-such-set"), "no data set is called 'no-such-set'"),
        (("--dataset", "crema-d"), "is not prepared"),
        (("--dataset", "demo", "--set", "model.channels=8"), "its weights say what it is"),
        (("--dataset", "demo", "--set", "data.sice=8"), "data.sice"),
        (("--dataset", "demo", "--set", "data.size=100"), "Try --set data.size=96."),
        (("--dataset", "demo", "--heads", "7"), "64 channels do not split into 7 heads"),
        (("--dataset", "demo", "--steps", "0"), "--steps is wrong"),
    ],
)
def test_what_does_not_fit_is_refused_with_one_sentence(
    avsnn: Command, theirs: Path, small_demo: Path, tmp_path: Path, words, message: str
) -> None:
    done = avsnn("convert-checkpoint", theirs, "run", *words, "--root", small_demo)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_weights_for_event_frames_do_not_fit_images(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    torch.save(authors_state("shallow_spatialtemporal"), tmp_path / "theirs")
    words = ("--dataset", "demo", "--steps", "16", "--root", small_demo)
    done = avsnn("convert-checkpoint", "theirs", "run", *words)
    assert done.returncode == 2
    assert "does not fit the inputs of demo" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_with_other_files_is_refused(
    avsnn: Command, theirs: Path, small_demo: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = avsnn("convert-checkpoint", theirs, "mine", *WORDS, "--root", small_demo)
    assert done.returncode == 2
    assert "holds other files and is no run" in done.stderr
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["notes.txt"]
