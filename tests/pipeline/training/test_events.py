"""Trains on small event frames: every method, refusals, and settings that change the shapes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from avsnn.errors import UserError
from avsnn.models.zoo import METHODS
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.evaluation.evaluate import evaluate
from avsnn.pipeline.inference import memory
from avsnn.pipeline.inference.memory import require_memory, require_memory_to_evaluate
from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.runs.checkpoint import read_checkpoint
from avsnn.pipeline.runs.config import RunConfig, make_config
from avsnn.pipeline.runs.metrics import read_metrics
from avsnn.pipeline.runs.sample_shapes import SampleShapes
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training.options import RunOptions
from avsnn.pipeline.training.train import train
from tests.event_data import write_event_data

CPU = torch.device("cpu")
TINY = [
    *("model.patch_split=shallow", "model.channels=16", "model.steps=3", "data.size=12"),
    *("epochs=1", "batch_size=16", "selection=last", "optimizer.warmup_epochs=0"),
]


@pytest.fixture(scope="module")
def event_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared event frames of 3 time steps and 12 x 12 px."""
    root = tmp_path_factory.mktemp("events")
    return write_event_data(root, dataset="demo-events", frames=(3, 2, 12, 12), audio=(3, 1, 4, 4))


def config_of(root: Path, *words: str) -> RunConfig:
    return make_config("demo-events", build_settings(TrainSettings, (), [*TINY, *words]), root=root)


def run(root: Path, folder: Path, *words: str, resume: bool = False, workers: int = 0) -> None:
    options = RunOptions(CPU, resume=resume, workers=workers, save_every=1)
    config = config_of(root, *words)
    train(config, folder=folder, options=options, progress=NoProgress(), say=lambda _: None)


def weights(folder: Path) -> dict[str, Tensor]:
    return read_checkpoint(folder / "checkpoints" / "last.safetensors").tensors


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_is_evaluated_on_event_frames(
    event_root: Path, tmp_path: Path, method: str
) -> None:
    words = [f"model.method={method}"]
    if method in ("add", "concat", "cmci"):
        words.append("model.alignment=false")
    run(event_root, tmp_path / "r", *words)
    (line,) = read_metrics(tmp_path / "r")
    assert np.isfinite(line["loss"])
    found = evaluate(tmp_path / "r", part="test", root=None, device=CPU, progress=NoProgress())
    assert found.evaluation.clips == 12
    first = "patch" if method in ("audio", "visual") else "visual_patch"
    channels = weights(tmp_path / "r")[f"{first}.stages.0.conv.weight"].shape[1]
    assert channels == (1 if method == "audio" else 2)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["model.steps=8"],
            ["--set model.steps=3,", "'avsnn prepare demo-events --set events.steps=8 "],
        ),
        (
            ["data.size=16"],
            ["--set data.size=12,", "'avsnn prepare demo-events --set events.crop=16 "],
        ),
        (["model.patch_split=deep"], ["multiples of 16", "--set model.patch_split=shallow"]),
    ],
)
def test_settings_that_do_not_fit_the_event_frames_are_refused_with_what_to_do(
    event_root: Path, tmp_path: Path, words: list[str], parts: list[str]
) -> None:
    with pytest.raises(UserError) as refusal:
        run(event_root, tmp_path / "r", *words)
    assert all(part in str(refusal.value) for part in parts), refusal.value
    assert not (tmp_path / "r").exists()


def test_event_frames_that_are_no_squares_are_refused(tmp_path: Path) -> None:
    root = write_event_data(
        tmp_path, dataset="demo-events", frames=(3, 2, 12, 16), audio=(3, 1, 4, 4)
    )
    with pytest.raises(UserError, match=r"12 x 16 px.*--set events\.crop=12 "):
        run(root, tmp_path / "r")


def test_a_batch_in_parts_in_bf16_with_channels_innermost_and_recomputed_blocks_is_trained(
    event_root: Path, tmp_path: Path
) -> None:
    words = [
        *("optimizer.accumulate=4", "compute.precision=bf16", "compute.channels_last=true"),
        *("compute.recompute=true", "data.augment.noise_snr=10"),
    ]
    run(event_root, tmp_path / "r", *words)
    assert np.isfinite(read_metrics(tmp_path / "r")[0]["loss"])


def test_each_part_of_a_batch_has_all_time_steps_of_its_clips(
    event_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = set()
    forward = torch.nn.Conv2d.forward

    def record(self: torch.nn.Conv2d, images: Tensor) -> Tensor:
        if self.in_channels == 2 and self.training:
            shapes.add(tuple(images.shape))
        return forward(self, images)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", record)
    run(event_root, tmp_path / "r", "optimizer.accumulate=4")
    assert shapes == {(3 * 4, 2, 12, 12)}


def test_a_training_that_was_cut_goes_on_to_the_same_weights(
    event_root: Path, tmp_path: Path
) -> None:
    run(event_root, tmp_path / "whole")
    run(event_root, tmp_path / "cut")
    (tmp_path / "cut" / "metrics.jsonl").unlink()
    for path in (tmp_path / "cut" / "checkpoints").glob("resume-00001-*"):
        path.unlink()
    run(event_root, tmp_path / "cut", resume=True)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_the_padding_of_crops_tells_runs_apart_only_on_event_frames_and_if_it_is_not_published(
    event_root: Path, small_demo: Path
) -> None:
    plain, same, other = (
        config_of(event_root, *words)
        for words in ([], ["data.augment.padding=4"], ["data.augment.padding=2"])
    )
    assert plain.fingerprint == same.fingerprint != other.fingerprint
    images = [
        make_config("demo", build_settings(TrainSettings, (), words), root=small_demo)
        for words in ([], ["data.augment.padding=2"])
    ]
    assert images[0].fingerprint == images[1].fingerprint


def test_the_padding_changes_the_training(event_root: Path, tmp_path: Path) -> None:
    run(event_root, tmp_path / "plain")
    run(event_root, tmp_path / "none", "data.augment.padding=0")
    plain, none = weights(tmp_path / "plain"), weights(tmp_path / "none")
    assert any(not torch.equal(plain[name], none[name]) for name in plain)


def test_the_memory_of_event_frames_counts_the_first_stage_in_every_time_step(
    event_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(event_root, "model.steps=100")
    needed: list[int] = []
    monkeypatch.setattr(memory, "_require_bytes", lambda count, *_: needed.append(count))
    for shapes in (
        open_source(config_of(event_root)).shapes,
        SampleShapes((3, 12, 12), (1, 12, 12)),
    ):
        require_memory(config, shapes, CPU, processes=1)
        require_memory_to_evaluate(config, shapes, CPU, clips=16)
    events, evaluated, images, _ = needed
    # Two streams: the output of the first stage, [100, 16, 8, 12, 12] float32, instead of one step.
    first = 100 * 16 * 8 * 12 * 12 * 4
    assert events - images == pytest.approx(2.6 * 2 * first * 0.99, rel=0.01)
    assert evaluated > first
