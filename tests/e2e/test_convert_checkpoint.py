"""Converts weights of the authors' code with the command; the network must give their logits."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from avsnn.models.zoo import ModelSettings, build
from tests.conftest import PROJECT, Command

GOLDEN = PROJECT / "tests" / "golden"


def authors_state(name: str) -> dict[str, torch.Tensor]:
    """Return the weights that were recorded from the authors' code."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {
            key.removeprefix("sd/"): torch.from_numpy(arrays[key].copy())
            for key in arrays.files
            if key.startswith("sd/")
        }


@pytest.mark.parametrize("wrapped", [True, False], ids=["pth.tar", "bare state dict"])
@pytest.mark.parametrize(("name", "method"), [("spatialtemporal", "s-cmrl"), ("cmci", "cmci")])
def test_a_converted_checkpoint_gives_the_authors_logits(
    avsnn: Command, tmp_path: Path, name: str, method: str, wrapped: bool
) -> None:
    state = authors_state(name)
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "theirs")
    done = avsnn("convert-checkpoint", "theirs", "ours.safetensors")
    assert done.returncode == 0, done.stderr
    assert f"{method}, C = 64, 6 classes, T = 4" in done.stdout
    assert "keys never called, dropped: " in done.stdout
    assert "0 keys unknown" in done.stdout
    with safe_open(tmp_path / "ours.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["avsnn"])
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    model = build(ModelSettings(**facts["settings"]), classes=facts["classes"])
    model.load_state_dict(weights)
    with np.load(GOLDEN / f"{name}.npz") as arrays, torch.no_grad():
        audio, visual = (
            torch.from_numpy(arrays[f"{part}_i8"]) * float(arrays["input_scale"])
            for part in ("audio", "visual")
        )
        logits = model.eval()(audio, visual).logits
        assert np.allclose(logits, arrays["eval_logits"], atol=1e-5)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    avsnn: Command, tmp_path: Path
) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Malicious()}, tmp_path / "theirs")
    done = avsnn("convert-checkpoint", "theirs", "ours.safetensors")
    assert done.returncode == 2
    assert "is no checkpoint that can be read safely" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "ours.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "part_of_message"),
    [
        (None, "is no file"),
        ({"epoch": 3}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
        ({"conv.weight": torch.zeros(2)}, "cannot be converted"),
    ],
)
def test_a_file_without_weights_is_refused_with_one_sentence(
    avsnn: Command, tmp_path: Path, content: object, part_of_message: str
) -> None:
    if content is not None:
        torch.save(content, tmp_path / "theirs")
    done = avsnn("convert-checkpoint", "theirs", "ours.safetensors")
    assert done.returncode == 2
    assert done.stderr.startswith("avsnn: ")
    assert done.stderr.count("\n") == 1
    assert part_of_message in done.stderr


def test_garbage_is_refused_with_one_sentence(avsnn: Command, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"\x80garbage" * 99)
    done = avsnn("convert-checkpoint", "theirs", "ours.safetensors")
    assert done.returncode == 2
    assert "is no checkpoint that can be read safely" in done.stderr
