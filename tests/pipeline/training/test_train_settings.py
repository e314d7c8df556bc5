"""Trains the demo with one changed setting at a time, and checks the effect of the setting."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from avsnn.errors import UserError
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.experiments.presets import load_presets
from avsnn.pipeline.runs.checkpoint import read_checkpoint
from avsnn.pipeline.runs.config import TRAIN_VERSION, RunConfig, make_config
from avsnn.pipeline.runs.metrics import read_metrics
from avsnn.pipeline.runs.sample_shapes import SampleShapes
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training import state
from avsnn.pipeline.training.optimizer import AdamW
from avsnn.pipeline.training.options import RunOptions
from avsnn.pipeline.training.resume import resume_points
from avsnn.pipeline.training.train import train

TINY = ["model.channels=16", "epochs=1", "batch_size=16", "data.size=32", "selection=last"]


def run(
    root: Path,
    folder: Path,
    *words: str,
    say: Callable[[str], None] = lambda _: None,
    progress: NoProgress | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train the demo; return the metrics.

    Args:
        root: the root of the prepared demo.
        folder: the run folder.
        words: changed settings, each as ``key=value``.
        say: gets the sentences that a person should read.
        progress: told of every step.
        options: fields of ``RunOptions``.
    """
    settings = build_settings(TrainSettings, load_presets("demo", ["healthy"]), [*TINY, *words])
    config = make_config("demo", settings, root=root)
    train(
        config,
        folder=folder,
        options=RunOptions(torch.device("cpu"), **options),
        progress=progress or NoProgress(),
        say=say,
    )
    return read_metrics(folder)


@pytest.fixture(scope="module")
def plain(
    small_demo: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """A run with the common settings only: its folder and its metrics."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    return folder, run(small_demo, folder)


@pytest.fixture
def visual_inputs(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The inputs of the first convolution of the visual stream, batch by batch, in training."""
    inputs: list[Tensor] = []

    def build_watched(config: RunConfig, shapes: SampleShapes) -> nn.Module:
        model = build_network(config, shapes)
        first = next(m for m in model.visual_patch.modules() if isinstance(m, nn.Conv2d))

        def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if module.training:
                inputs.append(args[0].detach())

        first.register_forward_pre_hook(record)
        return model

    build_network = state.build_network
    monkeypatch.setattr(state, "build_network", build_watched)
    return inputs


def weights(folder: Path, name: str = "last") -> dict[str, Tensor]:
    return read_checkpoint(folder / "checkpoints" / f"{name}.safetensors").tensors


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


def test_bf16_changes_the_weights_and_keeps_the_loss(
    small_demo: Path, tmp_path: Path, plain: tuple[Path, list[dict[str, Any]]]
) -> None:
    metrics = run(small_demo, tmp_path / "r", "compute.precision=bf16")
    assert differ(weights(tmp_path / "r"), weights(plain[0]))
    assert metrics[0]["loss"] == pytest.approx(plain[1][0]["loss"], rel=0.05)
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(tmp_path / "r").values())


@pytest.mark.long
def test_a_compiled_network_reaches_the_same_loss(small_demo: Path, tmp_path: Path) -> None:
    # The network has one stream and few layers, because a C++ compiler needs about a second for
    # each kernel.
    words = ["model.method=audio", "model.patch_split=shallow"]
    (plain,) = run(small_demo, tmp_path / "plain", *words)
    torch._dynamo.utils.counters.clear()
    (compiled,) = run(small_demo, tmp_path / "r", *words, "compute.compile=true")
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    assert compiled["loss"] == pytest.approx(plain["loss"], rel=0.02)
    assert compiled["spike_rates"].keys() == plain["spike_rates"].keys()


def test_channels_last_reaches_the_convolutions_and_keeps_the_loss(
    small_demo: Path,
    tmp_path: Path,
    plain: tuple[Path, list[dict[str, Any]]],
    visual_inputs: list[Tensor],
) -> None:
    metrics = run(small_demo, tmp_path / "r", "compute.channels_last=true")
    assert visual_inputs
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in visual_inputs)
    assert metrics[0]["loss"] == pytest.approx(plain[1][0]["loss"], rel=0.02)


def test_a_training_that_does_not_compile_does_not_import_the_compiler(
    small_demo: Path, tmp_path: Path
) -> None:
    words = ["train", "demo", "--root", str(small_demo), "--run", str(tmp_path / "r")]
    program = (
        f"import sys; sys.argv[1:] = {[*words, *(f'--set={word}' for word in TINY)]}\n"
        "from avsnn.cli.main import main\n"
        "try: main()\n"
        "finally: assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_accumulation_computes_a_batch_in_parts_and_takes_one_step_for_each_batch(
    small_demo: Path, tmp_path: Path, visual_inputs: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    step = AdamW.step
    monkeypatch.setattr(AdamW, "step", lambda self, *a: (steps.append(1), step(self, *a)))
    run(small_demo, tmp_path / "r", "optimizer.accumulate=2")
    assert {len(image) for image in visual_inputs} == {8}
    assert len(visual_inputs) == 2 * len(steps) > 0


def test_accumulated_gradients_equal_those_of_the_whole_batch_without_batch_norm_and_alignment(
    small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients: list[list[Tensor]] = []

    def record(self: AdamW, *_: object) -> None:
        found = [p.grad.clone() for group in self.param_groups for p in group["params"]]
        gradients.append(found)

    monkeypatch.setattr(AdamW, "step", record)
    # Batch norm and alignment mix the clips of a batch. Without both, the gradients must agree.
    set_mode = nn.Module.train
    monkeypatch.setattr(nn.Module, "train", lambda self, mode=True: set_mode(self, False))
    words = ["model.method=add", "model.alignment=false"]
    run(small_demo, tmp_path / "whole", *words)
    count = len(gradients)
    run(small_demo, tmp_path / "parts", *words, "optimizer.accumulate=4")
    for whole, parts in zip(gradients[:count], gradients[count:], strict=True):
        for found, expected in zip(parts, whole, strict=True):
            assert torch.allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_clipping_limits_the_norm_of_every_gradient(
    small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = []
    step = AdamW.step

    def record(self: AdamW, *args: Any) -> Any:
        squares = [p.grad.square().sum() for g in self.param_groups for p in g["params"]]
        norms.append(float(torch.stack(squares).sum().sqrt()))
        return step(self, *args)

    monkeypatch.setattr(AdamW, "step", record)
    run(small_demo, tmp_path / "free")
    assert max(norms) > 0.01
    norms.clear()
    run(small_demo, tmp_path / "r", "optimizer.clip_norm=0.01")
    assert norms
    assert max(norms) <= 0.01 * (1 + 1e-4)


def test_the_saved_weights_are_the_moving_average(small_demo: Path, tmp_path: Path) -> None:
    words = ["optimizer.ema_decay=0.9", "optimizer.warmup_epochs=0"]
    run(small_demo, tmp_path / "r", *words, save_every=1, keep=99)
    points = resume_points(tmp_path / "r" / "checkpoints")
    expected: dict[str, Tensor] = {}
    for position in sorted(points):
        current = {
            name.removeprefix("model."): tensor
            for name, tensor in read_checkpoint(points[position]).tensors.items()
            if name.startswith("model.")
        }
        expected = {
            name: 0.9 * expected[name] + 0.1 * current[name] if expected else current[name]
            for name in current
        }
    saved = weights(tmp_path / "r")
    parameters = [name for name in saved if "running" not in name and "tracked" not in name]
    assert len(points) > 2
    for name in parameters:
        assert torch.allclose(saved[name], expected[name], atol=1e-6), name
    assert differ({name: saved[name] for name in parameters}, current)


def test_a_run_folder_holds_all_that_a_repetition_needs(
    plain: tuple[Path, list[dict[str, Any]]],
) -> None:
    text = (plain[0] / "config.yaml").read_text()
    for word in ("command:", "git_commit:", "torch:", "zarr:", "seed: 42", "fingerprint:"):
        assert word in text
    line = json.loads((plain[0] / "metrics.jsonl").read_text())
    assert {"loss", "cross_entropy", "alignment", "accuracy", "samples_per_second"} <= line.keys()


def test_resuming_with_other_kernels_is_reported(
    small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, folder = ["model.method=audio", "epochs=2"], tmp_path / "r"
    run(small_demo, folder, *words)
    # Leave the folder as a kill in the second epoch leaves the folder.
    metrics = folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    for position, path in resume_points(folder / "checkpoints").items():
        if position.epoch == 2:
            path.unlink()
    messages: list[str] = []
    monkeypatch.setattr(state, "choose_kernels", lambda *_: "others")
    lines = run(small_demo, folder, *words, say=messages.append, resume=True)
    assert any("goes on with 'others': not bit for bit" in line for line in messages)
    assert [line["kernels"] for line in lines][1:] == ["others"]


def test_a_run_stays_the_same_run_with_and_without_a_cuda_graph(
    small_demo: Path, tmp_path: Path
) -> None:
    run(small_demo, tmp_path / "r", "epochs=2", "compute.cuda_graph=off")
    run(small_demo, tmp_path / "r", "epochs=2", "compute.cuda_graph=auto", resume=True)
    with pytest.raises(UserError, match=r"another run \(compute\.tf32 True there, False here\)"):
        run(small_demo, tmp_path / "r", "epochs=2", "compute.tf32=false", resume=True)


def test_a_run_of_a_version_without_graphs_tf32_and_events_is_the_same_run(
    small_demo: Path, tmp_path: Path
) -> None:
    run(small_demo, tmp_path / "r")
    content = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())
    data, settings = content["data"], content["settings"]
    for name in ("cuda_graph", "tf32"):
        del settings["compute"][name]
    for name in ("shuffle_window", "clips_per_class", "frames", "audio"):
        del settings["data"][name]
    del settings["optimizer"]["recalibrate_norms"]
    del settings["data"]["augment"]["padding"]
    del settings["model"]["custom"]
    del settings["balance"]
    identity = [TRAIN_VERSION, "demo", data["fingerprint"], content["clips"], settings]
    assert content["fingerprint"] == fingerprint(identity)


def test_a_step_that_gives_batch_norm_one_value_is_refused_before_a_file_is_written(
    small_demo: Path, tmp_path: Path
) -> None:
    words = ["model.steps=1", "data.size=16", "batch_size=2", "optimizer.accumulate=2"]
    with pytest.raises(UserError, match=r"one value of each channel.*raise batch_size"):
        run(small_demo, tmp_path / "r", *words)
    assert not (tmp_path / "r").exists()


def test_a_window_of_shards_is_another_order_which_is_the_same_from_shards_and_from_caches(
    small_demo: Path, plain: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    said: list[str] = []
    ones = [
        run(small_demo, tmp_path / name, "data.shuffle_window=2", say=said.append, shards=shards)
        for name, shards in (("caches", False), ("shards", True))
    ]
    losses = [line[0]["loss"] for line in (*ones, plain[1])]
    assert losses[0] == losses[1] != losses[2]
    (note, _) = [sentence for sentence in said if "data.shuffle_window" in sentence]
    assert note.startswith("the clips of 2 of 11 shards are shuffled at a time")
    assert "a batch of 16 has clips of 4." in note
