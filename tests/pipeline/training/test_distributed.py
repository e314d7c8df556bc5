"""Two processes with batch norm statistics of their own train and evaluate one network."""

import multiprocessing
import os
import socket
from pathlib import Path

import torch
from torch import Tensor

from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.experiments.presets import load_presets
from avsnn.pipeline.inference.predict import predict
from avsnn.pipeline.runs.config import RunConfig, make_config
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training.distributed import ProcessGroup, join_process_group
from avsnn.pipeline.training.options import RunOptions
from avsnn.pipeline.training.training_loop import TrainingLoop

CPU = torch.device("cpu")


def make_loop(config: RunConfig, folder: Path, group: ProcessGroup) -> TrainingLoop:
    """Return a training whose batch norm statistics depend on the process."""
    loop = TrainingLoop(config, folder, RunOptions(CPU), group, NoProgress(), lambda _: None)
    for name, buffer in loop.state.model.named_buffers():
        if name.endswith("running_mean"):
            # Low means make neurons fire, high means make neurons silent.
            buffer.fill_(-1.0 + 2 * group.rank)
    return loop


def work(rank: int, port: int, config: RunConfig, folder: Path) -> None:
    """Run in a process of its own: evaluate, train an epoch, save logits and weights."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    # The network would be compiled, which takes time and changes nothing of what this test asks.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with join_process_group(CPU) as group:
        loop = make_loop(config, folder, group)
        scores = loop._evaluate_selection()
        assert scores is not None
        assert loop._recalibrate_norms()
        torch.save(loop.state.model.state_dict(), folder / f"{rank}-anew.pt")
        loop._train_epoch(0, 0)
        torch.save([scores.logits, *loop.state.model.parameters()], folder / f"{rank}.pt")
        loop.close()


def test_every_process_evaluates_and_trains_the_network_of_the_main_process(
    small_demo: Path, tmp_path: Path
) -> None:
    words = ["model.channels=16", "data.size=32", "batch_size=8", "compute.compile=true"]
    settings = build_settings(TrainSettings, load_presets("demo", ["healthy"]), words)
    config = make_config("demo", settings, root=small_demo)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=work, args=(rank, port, config, tmp_path)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found: list[list[Tensor]] = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    loop = make_loop(config, tmp_path, ProcessGroup())
    assert loop.selection_rows is not None
    alone = predict(loop.state.model, loop.loader, loop.selection_rows, settings, device=CPU)
    assert alone.logits.std(dim=0).min() > 0
    for logits, *_ in found:
        torch.testing.assert_close(logits, alone.logits)
    # A half of a batch in each of two processes is what one process computes in two parts.
    words.append("optimizer.accumulate=2")
    halves = build_settings(TrainSettings, load_presets("demo", ["healthy"]), words)
    parts = make_loop(make_config("demo", halves, root=small_demo), tmp_path, ProcessGroup())
    assert parts._recalibrate_norms()
    for rank in range(2):
        anew = torch.load(tmp_path / f"{rank}-anew.pt")
        for name, expected in parts.state.model.state_dict().items():
            if "running" in name:
                torch.testing.assert_close(anew[name], expected, rtol=1e-4, atol=1e-6)
    # Every step, also the last, shares the gradients of a compiled network.
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
