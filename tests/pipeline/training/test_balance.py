"""Balanced training of a run: resume, processes, parts of batches, and what is refused."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avsnn.errors import UserError
from avsnn.models.balance import NONE, STRATEGIES, ScoreStrategy
from avsnn.models.readout import SumReadout
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.experiments.presets import load_presets
from avsnn.pipeline.runs.checkpoint import read_checkpoint
from avsnn.pipeline.runs.config import RunConfig, make_config
from avsnn.pipeline.runs.sample_shapes import SampleShapes
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training.balance import drop_modalities
from avsnn.pipeline.training.distributed import ProcessGroup, join_process_group
from avsnn.pipeline.training.epoch_totals import EpochTotals
from avsnn.pipeline.training.finite_check import FiniteCheck
from avsnn.pipeline.training.options import RunOptions
from avsnn.pipeline.training.resume import resume_points
from avsnn.pipeline.training.state import build_state
from avsnn.pipeline.training.step import TrainingStep
from avsnn.pipeline.training.training_loop import TrainingLoop
from tests.pipeline.training.test_train_settings import differ, run, weights
from tests.plugin_package import STRATEGY

CPU = torch.device("cpu")
NAMES = [name for name in STRATEGIES if name != NONE]
each_strategy = pytest.mark.parametrize("strategy", NAMES)


@pytest.fixture
def catch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the strategy of the page on plugins, which remembers the steps before."""
    monkeypatch.setattr(STRATEGIES, "data", dict(STRATEGIES.data))
    exec(STRATEGY, {"__name__": "my_strategy"})  # noqa: S102


@pytest.mark.usefixtures("catch_up")
@pytest.mark.parametrize("strategy", [*NAMES, "catch-up"])
def test_a_balanced_training_that_was_cut_ends_with_the_bytes_of_a_whole_one(
    small_demo: Path, tmp_path: Path, strategy: str
) -> None:
    words = [f"balance.strategy={strategy}", "balance.modality_dropout=0.5", "epochs=2"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(small_demo, whole, *words)
    run(small_demo, cut, *words, save_every=1, keep=99)
    # Leave the folder as a kill after the first step of the second epoch leaves the folder.
    metrics = cut / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    for position, path in resume_points(cut / "checkpoints").items():
        if position > (1, 1):
            path.unlink()
    point = resume_points(cut / "checkpoints")[1, 1]
    tensors = read_checkpoint(point).tensors
    assert ("strategy.lead" in tensors) == (strategy == "catch-up")
    run(small_demo, cut, *words, resume=True)
    last = Path("checkpoints", "last.safetensors")
    assert (cut / last).read_bytes() == (whole / last).read_bytes()


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[Any, Any]], None]:
    """Register a strategy ``keep`` that has this memory at its start."""

    def register(memory: dict[Any, Any]) -> None:
        class Keep(ScoreStrategy):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.memory.update(memory)

            def change_gradients(self) -> None:
                for tensor in self.memory.values():
                    tensor.add_(1)

        monkeypatch.setitem(STRATEGIES.data, "keep", Keep)

    return register


def test_a_resume_point_with_another_memory_is_refused(
    small_demo: Path, tmp_path: Path, keep: Callable[[dict[Any, Any]], None]
) -> None:
    words, number = ["balance.strategy=keep", "epochs=2"], torch.zeros(())
    keep({"lead": number, "same": number})
    run(small_demo, tmp_path, *words)
    # Leave the folder as a kill after the first epoch leaves the folder.
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    resume_points(tmp_path / "checkpoints")[2, 0].unlink()
    for memory, found in (
        ({"lead": torch.zeros(2), "same": number}, r"lead .* float32 of shape \[\] there, .*\[2\]"),
        ({"lead": number.long(), "same": number}, "lead .* float32 .* int64 "),
        ({"lead": number}, "same .* there, nothing here"),
        ({"lead": number, "same": number, "more": number}, "more .* nothing there"),
    ):
        keep(memory)
        with pytest.raises(UserError, match=f"does not fit this run .the memory {found}"):
            run(small_demo, tmp_path, *words, resume=True)


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        ({"steps": 0}, r"memory\['steps'\] is of the type int, and must be a tensor"),
        ({3: torch.zeros(())}, r"memory\[3\] must have a text as its name"),
        ({"x": torch.zeros(1, requires_grad=True)}, "must be a contiguous tensor without gradient"),
        ({"x": torch.zeros(1).expand(4)}, "must be a contiguous tensor without gradient"),
    ],
)
def test_a_memory_that_no_resume_point_holds_is_refused_before_a_file_is_written(
    small_demo: Path,
    tmp_path: Path,
    keep: Callable[[dict[Any, Any]], None],
    memory: dict[Any, Any],
    reason: str,
) -> None:
    keep(memory)
    with pytest.raises(UserError, match=rf"^balance\.strategy keep: .*{reason}"):
        run(small_demo, tmp_path / "r", "balance.strategy=keep")
    assert not (tmp_path / "r").exists()


@each_strategy
@pytest.mark.parametrize("words", [["compute.precision=bf16"], ["compute.recompute=true"]])
def test_a_balanced_training_runs_with_other_settings_and_changes_the_weights(
    small_demo: Path, tmp_path: Path, strategy: str, words: list[str]
) -> None:
    run(small_demo, tmp_path / "plain", *words)
    said: list[str] = []
    balance = (f"balance.strategy={strategy}", "balance.modality_dropout=0.5")
    (line,) = run(small_demo, tmp_path / "r", *words, *balance, say=said.append)
    assert any(f", balanced by {strategy}, modality dropout 0.5" in one for one in said)
    assert 0 <= line["audio_accuracy"] <= 1
    assert 0 <= line["visual_accuracy"] <= 1
    assert np.isfinite(line["loss"])
    assert differ(weights(tmp_path / "r"), weights(tmp_path / "plain"))


def test_computing_blocks_twice_changes_nothing_of_mmpareto(
    small_demo: Path, tmp_path: Path
) -> None:
    words = ["balance.strategy=mmpareto", "optimizer.warmup_epochs=0"]
    run(small_demo, tmp_path / "once", *words)
    run(small_demo, tmp_path / "twice", *words, "compute.recompute=true")
    twice = weights(tmp_path / "twice")
    for name, tensor in weights(tmp_path / "once").items():
        torch.testing.assert_close(twice[name], tensor)


def test_a_share_of_the_clips_loses_one_modality_whatever_the_batch_is() -> None:
    settings = build_settings(TrainSettings, {}, ["balance.modality_dropout=0.4"])
    rows = np.arange(2000)
    ones = torch.ones(2000, 1, 2, 2), torch.ones(3, 2000, 2, 2, 2)
    audio, frames = drop_modalities(ones, rows, settings, epoch=3)
    no_audio, no_frames = audio[:, 0, 0, 0] == 0, frames[0, :, 0, 0, 0] == 0
    assert torch.equal(audio, ones[0] * ~no_audio[:, None, None, None])
    assert torch.equal(frames, ones[1] * ~no_frames[None, :, None, None, None])
    assert not (no_audio & no_frames).any()
    # The chance of a larger distance from the mean is less than 1 in 10,000.
    assert abs(int(no_audio.sum()) - 400) < 72
    assert abs(int(no_frames.sum()) - 400) < 72
    some = rows[[7, 3, 1999]]
    few, _ = drop_modalities((audio[:3] * 0 + 1, ones[1][:, :3]), some, settings, epoch=3)
    assert torch.equal(few[:, 0, 0, 0] == 0, no_audio[some])
    other, _ = drop_modalities(ones, rows, settings, epoch=4)
    assert not torch.equal(other, audio)


def test_an_input_that_loses_clips_keeps_its_memory_layout() -> None:
    settings = build_settings(TrainSettings, {}, ["balance.modality_dropout=1"])
    images = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    for tensor in drop_modalities((images, images), np.arange(4), settings, epoch=0):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["model.method=audio", "balance.strategy=ogm-ge"],
            r"balance\.strategy is ogm-ge.*two streams.*model\.method audio has one.*=none\.",
        ),
        (
            ["model.method=visual", "balance.modality_dropout=0.5"],
            r"balance\.modality_dropout is 0\.5.*model\.method visual has one.*=0\.0\.",
        ),
        (
            ["balance.strategy=mmpareto", "compute.compile=true"],
            r"mmpareto computes several gradients.*compute\.compile.*choose one",
        ),
    ],
)
def test_what_balanced_training_cannot_do_is_refused_before_a_file_is_written(
    small_demo: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        run(small_demo, tmp_path / "r", *words)
    assert not (tmp_path / "r").exists()


def test_a_readout_that_cannot_say_what_a_stream_adds_is_refused(
    small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(SumReadout, "shares")
    with pytest.raises(UserError, match=r"readout of model\.method add has no function 'shares'"):
        run(small_demo, tmp_path / "r", "model.method=add", "balance.strategy=iemf")


def work(rank: int, port: int, configs: dict[str, RunConfig], folder: Path) -> None:
    """Run in a process of its own: train an epoch with each strategy, and save the weights."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with join_process_group(CPU) as group:
        for name, config in configs.items():
            loop = TrainingLoop(config, folder, RunOptions(CPU), group, NoProgress(), print)
            loop._train_epoch(1, 0)
            torch.save(loop.state.model.state_dict(), folder / f"{name}-{rank}.pt")
            loop.close()


def test_two_processes_train_one_balanced_network(small_demo: Path, tmp_path: Path) -> None:
    # Without alignment, batch norm alone sees other clips in two processes than in one.
    words = ["model.channels=16", "data.size=32", "batch_size=8", "model.alignment=false"]

    def config(strategy: str, *more: str) -> RunConfig:
        chosen = [*words, f"balance.strategy={strategy}", "balance.modality_dropout=0.3", *more]
        settings = build_settings(TrainSettings, load_presets("demo", ["healthy"]), chosen)
        return make_config("demo", settings, root=small_demo)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configs = {name: config(name) for name in NAMES}
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=work, args=(rank, port, configs, tmp_path)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    for name in NAMES:
        one, other = (torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(2))
        # Half of a batch in each of two processes is what one process computes in two parts.
        parts = config(name, "optimizer.accumulate=2")
        loop = TrainingLoop(
            parts, tmp_path, RunOptions(CPU), ProcessGroup(), NoProgress(), lambda _: None
        )
        before = {key: value.clone() for key, value in loop.state.model.named_parameters()}
        loop._train_epoch(1, 0)
        for key, parameter in loop.state.model.named_parameters():
            assert torch.equal(one[key], other[key])
            moved = (parameter - before[key]).norm()
            assert (one[key] - parameter).norm() <= 0.05 * moved, (name, key)


def test_the_accuracy_of_a_stream_is_that_of_its_share_in_the_head(small_demo: Path) -> None:
    words = ["model.channels=16", "data.size=32", "batch_size=24", "balance.strategy=iemf"]
    settings = build_settings(TrainSettings, load_presets("demo", ["healthy"]), words)
    config = make_config("demo", settings, root=small_demo)
    shapes = SampleShapes(audio=(1, 32, 32), frames=(3, 32, 32))
    group = ProcessGroup()
    state = build_state(config, shapes, CPU, group, lambda _: None)
    dice = torch.Generator().manual_seed(1)
    audio = torch.randn(24, *shapes.audio, generator=dice)
    frames = torch.randn(24, *shapes.frames, generator=dice)
    labels = torch.arange(24) % 6
    network = deepcopy(state.model).train()
    shares = network(audio, frames).shares
    due = [float((share.argmax(1) == labels).float().mean()) for share in shares]
    totals = EpochTotals(state.model.train(), group=group, has_streams=True)
    TrainingStep(state, settings, group, FiniteCheck(CPU), totals)(audio, frames, labels)
    totals.steps += 1
    means = totals.means(all_processes=True)
    assert [means["audio_accuracy"], means["visual_accuracy"]] == pytest.approx(due)
    assert due[0] != due[1]
