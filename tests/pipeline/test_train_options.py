"""Each option of training does what it says, and leaves the rest alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avsnn.pipeline import train as trainer
from avsnn.pipeline.checkpoint import read_checkpoint, resume_points
from avsnn.pipeline.optimizer import AdamW
from avsnn.pipeline.run import RunConfig, TrainSettings, load_presets, make_config, read_metrics
from avsnn.pipeline.settings import build_settings
from tests.conftest import NoProgress

TINY = ["model.channels=16", "epochs=1", "batch_size=16", "data.size=32", "selection=last"]


def run(
    root: Path,
    folder: Path,
    *words: str,
    say: Callable[[str], None] = lambda _: None,
    **manner: Any,
) -> list[dict[str, Any]]:
    """Trains; returns the metrics."""
    settings = build_settings(TrainSettings, load_presets("demo", ["healthy"]), [*TINY, *words])
    config = make_config("demo", settings, root=root)
    trainer.train(
        config,
        folder=folder,
        manner=trainer.Manner(torch.device("cpu"), **manner),
        progress=NoProgress(),
        say=say,
    )
    return read_metrics(folder)


@pytest.fixture(scope="module")
def plain(
    small_demo: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """A run without any option."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    return folder, run(small_demo, folder)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What goes into the first convolution of vision, batch by batch, in training."""
    found: list[Tensor] = []

    def watched(config: RunConfig) -> nn.Module:
        model = build_network(config)
        first = next(m for m in model.visual_patch.modules() if isinstance(m, nn.Conv2d))

        def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if module.training:
                found.append(inputs[0].detach())

        first.register_forward_pre_hook(look)
        return model

    build_network = trainer.build_network
    monkeypatch.setattr(trainer, "build_network", watched)
    return found


def weights(folder: Path, name: str = "last") -> dict[str, Tensor]:
    return read_checkpoint(folder / "checkpoints" / f"{name}.safetensors").tensors


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


def test_bf16_computes_otherwise_and_learns_the_same(
    small_demo: Path, tmp_path: Path, plain: tuple[Path, list[dict[str, Any]]]
) -> None:
    metrics = run(small_demo, tmp_path / "r", "compute.precision=bf16")
    assert differ(weights(tmp_path / "r"), weights(plain[0]))
    assert metrics[0]["loss"] == pytest.approx(plain[1][0]["loss"], rel=0.05)
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(tmp_path / "r").values())


@pytest.mark.long
def test_a_compiled_network_is_compiled_and_computes_the_same(
    small_demo: Path, tmp_path: Path
) -> None:
    # One stream and few layers: a C++ compiler needs about a second for each of their kernels.
    words = ["model.method=audio", "model.patch_split=shallow"]
    (plain,) = run(small_demo, tmp_path / "plain", *words)
    torch._dynamo.utils.counters.clear()
    (ours,) = run(small_demo, tmp_path / "r", *words, "compute.compile=true")
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    assert ours["loss"] == pytest.approx(plain["loss"], rel=0.02)
    assert ours["spike_rates"].keys() == plain["spike_rates"].keys()


def test_channels_last_reaches_the_convolutions_and_computes_the_same(
    small_demo: Path,
    tmp_path: Path,
    plain: tuple[Path, list[dict[str, Any]]],
    seen: list[Tensor],
) -> None:
    metrics = run(small_demo, tmp_path / "r", "compute.channels_last=true")
    assert seen
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in seen)
    assert metrics[0]["loss"] == pytest.approx(plain[1][0]["loss"], rel=0.02)


def test_the_compiler_is_imported_only_by_those_who_ask_for_it(
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


def test_accumulation_works_on_parts_and_steps_once_a_batch(
    small_demo: Path, tmp_path: Path, seen: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    step = AdamW.step
    monkeypatch.setattr(AdamW, "step", lambda self, *a: (steps.append(1), step(self, *a)))
    run(small_demo, tmp_path / "r", "optimizer.accumulate=2")
    assert {len(image) for image in seen} == {8}
    assert len(seen) == 2 * len(steps) > 0


def test_accumulated_gradients_are_those_of_the_whole_batch_where_parts_do_not_see_each_other(
    small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients: list[list[Tensor]] = []

    def record(self: AdamW, *_: object) -> None:
        found = [p.grad.clone() for group in self.param_groups for p in group["params"]]
        gradients.append(found)

    monkeypatch.setattr(AdamW, "step", record)
    # Batch norm and alignment do look at each other's clips: without them, sums must agree.
    set_mode = nn.Module.train
    monkeypatch.setattr(nn.Module, "train", lambda self, mode=True: set_mode(self, False))
    words = ["model.method=add", "model.alignment=false"]
    run(small_demo, tmp_path / "whole", *words)
    count = len(gradients)
    run(small_demo, tmp_path / "parts", *words, "optimizer.accumulate=4")
    for whole, parts in zip(gradients[:count], gradients[count:], strict=True):
        for ours, theirs in zip(parts, whole, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)


def test_clipping_shortens_every_gradient(
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


def test_the_moving_average_is_what_is_kept_and_evaluated(small_demo: Path, tmp_path: Path) -> None:
    words = ["optimizer.ema_decay=0.9", "optimizer.warmup_epochs=0"]
    run(small_demo, tmp_path / "r", *words, save_every=1, keep=99)
    points = resume_points(tmp_path / "r" / "checkpoints")
    due: dict[str, Tensor] = {}
    for at in sorted(points):
        now = {
            name.removeprefix("model."): tensor
            for name, tensor in read_checkpoint(points[at]).tensors.items()
            if name.startswith("model.")
        }
        due = {name: 0.9 * due[name] + 0.1 * now[name] if due else now[name] for name in now}
    kept = weights(tmp_path / "r")
    parameters = [name for name in kept if "running" not in name and "tracked" not in name]
    assert len(points) > 2
    for name in parameters:
        assert torch.allclose(kept[name], due[name], atol=1e-6), name
    assert differ({name: kept[name] for name in parameters}, now)


def test_a_run_folder_says_how_to_repeat_it(plain: tuple[Path, list[dict[str, Any]]]) -> None:
    text = (plain[0] / "config.yaml").read_text()
    for word in ("command:", "git_commit:", "torch:", "zarr:", "seed: 42", "fingerprint:"):
        assert word in text
    line = json.loads((plain[0] / "metrics.jsonl").read_text())
    assert {"loss", "cross_entropy", "alignment", "accuracy", "samples_per_second"} <= line.keys()


def test_going_on_with_other_kernels_is_said(
    small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, folder = ["model.method=audio", "epochs=2"], tmp_path / "r"
    run(small_demo, folder, *words)
    # as after a kill in the second epoch
    metrics = folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    for at, path in resume_points(folder / "checkpoints").items():
        if at.epoch == 2:
            path.unlink()
    said: list[str] = []
    monkeypatch.setattr(trainer, "choose_kernels", lambda *_: "others")
    lines = run(small_demo, folder, *words, say=said.append, resume=True)
    assert any("goes on with 'others': not bit for bit" in line for line in said)
    assert [line["kernels"] for line in lines][1:] == ["others"]
