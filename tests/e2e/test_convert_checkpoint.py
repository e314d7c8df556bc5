"""Converts weights of the authors' code with the command; the network must give their logits."""

import argparse
import json
import os
import subprocess
from collections.abc import Callable
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


def test_a_converted_checkpoint_of_event_data_says_its_two_polarities(
    avsnn: Command, tmp_path: Path
) -> None:
    name = "shallow_spatialtemporal"
    torch.save(authors_state(name), tmp_path / "theirs")
    done = avsnn("convert-checkpoint", "theirs", "ours.safetensors", "--set", "steps=16")
    assert done.returncode == 0, done.stderr
    assert "s-cmrl, C = 32, 6 classes, T = 16" in done.stdout
    with safe_open(tmp_path / "ours.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["avsnn"])
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    settings = ModelSettings(**facts.pop("settings"))
    facts.pop("sha256")
    assert facts == {"classes": 6, "visual_channels": 2}
    model = build(settings, **facts)
    model.load_state_dict(weights)
    with np.load(GOLDEN / f"{name}.npz") as arrays, torch.no_grad():
        audio, visual = (
            (torch.from_numpy(arrays[f"{part}_i8"]) * float(arrays["input_scale"])).repeat(
                16, 1, 1, 1, 1
            )
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


def test_a_file_of_timms_saver_with_the_arguments_of_the_command_is_read(
    avsnn: Command, tmp_path: Path
) -> None:
    content = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, data=["a"], nested=argparse.Namespace(x=None)),
        "metric": 71.5,
        "state_dict": authors_state("spatialtemporal"),
    }
    torch.save(content, tmp_path / "theirs")
    done = avsnn("convert-checkpoint", "theirs", "ours.safetensors")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module.", "module.module."],
)
def test_prefixes_of_wrappers_are_ignored(avsnn: Command, tmp_path: Path, prefix: str) -> None:
    plain = authors_state("spatialtemporal")
    wrapped = {f"{prefix}{key}": tensor for key, tensor in plain.items()}
    for name, keys in (("plain", plain), ("wrapped", wrapped)):
        torch.save({"state_dict": keys}, tmp_path / name)
        done = avsnn("convert-checkpoint", name, f"{name}.safetensors")
        assert done.returncode == 0, done.stderr
    one, other = (tmp_path / f"{name}.safetensors" for name in ("plain", "wrapped"))
    assert one.read_bytes() == other.read_bytes()


HEAD = "head.weight"
Change = Callable[[dict[str, torch.Tensor]], object]

UNUSABLE: dict[str, tuple[Change, str]] = {
    "missing": (lambda state: state.pop("head.bias"), "are missing: readout.head.bias"),
    "wrong shape": (
        lambda state: state.update({"head.bias": torch.zeros(7)}),
        "have another shape",
    ),
    "NaN": (lambda state: state[HEAD].fill_(float("nan")), "NaN or infinite"),
    "infinite": (lambda state: state[HEAD].view(-1)[:1].fill_(float("inf")), "NaN or infinite"),
    "0-d": (lambda state: state.update({HEAD: torch.tensor(1.0)}), "cannot be converted"),
    "1-d": (lambda state: state.update({HEAD: torch.zeros(6)}), "cannot be converted"),
    "0-d convolution": (
        lambda state: state.update({"audio_patch_embed.rpe_conv.weight": torch.tensor(1.0)}),
        "cannot be converted",
    ),
    "no channels": (
        lambda state: state.update({"audio_patch_embed.rpe_conv.weight": torch.zeros(0, 0, 3, 3)}),
        "cannot be converted",
    ),
    "long threshold": (
        lambda state: state.update(
            {key: torch.ones(3) for key in state if key.endswith("threshold")}
        ),
        "cannot be converted",
    ),
    "sparse": (lambda state: state.update({HEAD: state[HEAD].to_sparse()}), "is sparse"),
    "quantized": (
        lambda state: state.update(
            {HEAD: torch.quantize_per_tensor(state[HEAD], 0.1, 0, torch.qint8)}
        ),
        "quantized",
    ),
    "meta": (lambda state: state.update({HEAD: state[HEAD].to("meta")}), "without content"),
    "complex": (lambda state: state.update({HEAD: state[HEAD].to(torch.complex64)}), "complex"),
    "twice": (lambda state: state.update({f"module.{HEAD}": state[HEAD]}), "the same name"),
}


@pytest.mark.parametrize(("change", "part_of_message"), UNUSABLE.values(), ids=UNUSABLE)
def test_weights_that_the_network_would_not_load_are_refused_with_one_sentence(
    avsnn: Command, tmp_path: Path, change: Change, part_of_message: str
) -> None:
    state = authors_state("spatialtemporal")
    assert HEAD in state
    change(state)
    torch.save({"state_dict": state}, tmp_path / "theirs")
    done = avsnn("convert-checkpoint", "theirs", "ours.safetensors")
    assert_refused(done, part_of_message)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("method", ["cmci", "sca", "audio", "nope"])
def test_a_method_that_the_weights_do_not_fit_is_refused(
    avsnn: Command, tmp_path: Path, method: str
) -> None:
    torch.save(authors_state("spatialtemporal"), tmp_path / "theirs")
    words = ["theirs", "ours.safetensors", "--set", f"method={method}"]
    assert_refused(avsnn("convert-checkpoint", *words), "cannot be converted")
    assert not (tmp_path / "ours.safetensors").exists()


def test_tensors_that_share_memory_are_converted(avsnn: Command, tmp_path: Path) -> None:
    state = authors_state("spatialtemporal")
    first, second = [key for key in state if key.endswith("proj_bn3.running_var")][:2]
    state[second] = state[first]
    torch.save(state, tmp_path / "theirs")
    done = avsnn("convert-checkpoint", "theirs", "ours.safetensors")
    assert done.returncode == 0, done.stderr


def test_the_checkpoint_to_convert_is_never_overwritten(avsnn: Command, tmp_path: Path) -> None:
    torch.save(authors_state("spatialtemporal"), tmp_path / "theirs")
    before = (tmp_path / "theirs").read_bytes()
    (tmp_path / "link").symlink_to("theirs")
    for target in ("theirs", "./theirs", "link"):
        assert_refused(avsnn("convert-checkpoint", "theirs", target), "checkpoint to convert")
    assert (tmp_path / "theirs").read_bytes() == before


@pytest.mark.parametrize("target", ["/proc/ours", "theirs/ours", "x" * 300])
def test_a_target_that_cannot_be_written_is_one_sentence(
    avsnn: Command, tmp_path: Path, target: str
) -> None:
    torch.save(authors_state("spatialtemporal"), tmp_path / "theirs")
    assert_refused(avsnn("convert-checkpoint", "theirs", target), "cannot be written")


def assert_refused(done: subprocess.CompletedProcess[str], part_of_message: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("avsnn: ")
    assert done.stderr.count("\n") == 1
    assert part_of_message in done.stderr
