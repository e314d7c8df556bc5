"""Measures whether ``avsnn train`` loses speed to loading and logging, against bare steps.

Run ``python -m benchmarks.end_to_end`` in the project's folder, with the ``dev`` extra installed;
on a GPU with ``--device cuda``. The benchmark prepares the demo, or takes the demo that ``--data``
names. Then two ways take turns: ``avsnn train`` trains some epochs and reports its samples per
second; a bare loop takes the same steps, on a GPU as the same CUDA graph, over the same batches in
the same order from the same weights. The batches of the bare loop are loaded and augmented before
the clock starts.

With more than one epoch, the rate of ``avsnn train`` is the median over the epochs after the first,
in which kernels are compiled, and the bare loop warms up as well.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from avsnn.models.losses import LossSettings, training_loss
from avsnn.pipeline.inference.device import autocast, choose_kernels, choose_precision
from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.inference.network import build_network, place_network
from avsnn.pipeline.loading.batch import read_batch
from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.loading.order import training_requests
from avsnn.pipeline.loading.parts import Parts
from avsnn.pipeline.runs.config import RunConfig, load_config
from avsnn.pipeline.training.graphed_step import graphed
from avsnn.pipeline.training.optimizer import make_optimizer
from benchmarks.measuring import print_machine

#: Settings of ``avsnn train demo``, by the name of the size.
SIZES: dict[str, list[str]] = {
    "published": ["model.channels=256", "data.size=128"],
    "demo": [],
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_demo_arguments(parser, size="published")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()
    print_machine("torch")
    if args.device == "cuda":
        print(torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}")
    print(f"{args.size} size, {args.precision}, B = {args.batch}, {args.epochs} epochs", flush=True)
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as temporary:
        work = Path(temporary)
        data = args.data or prepare_demo(work / "data", args.clips)
        ratios = []
        for turn in range(args.rounds):
            run = work / f"run{turn}"
            trained = trained_rate(data, run, args)
            bare = bare_rate(load_config(run), torch.device(args.device), passes=args.epochs)
            ratios.append(trained / bare)
            print(
                f"avsnn train {trained:,.2f} samples/s, bare steps {bare:,.2f} samples/s",
                flush=True,
            )
    print(f"avsnn train / bare steps: {statistics.median(ratios):.3f}, target 0.95")


def add_demo_arguments(parser: argparse.ArgumentParser, *, size: str) -> None:
    """Add the arguments of a benchmark that trains the demo; ``size`` is the default size."""
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--data", type=Path, help="folder with a prepared demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, default=size)


def train_command(
    data: Path, run: Path, args: argparse.Namespace, settings: Sequence[str] = ()
) -> list[str]:
    """Return the command that trains the demo in the size and with the settings."""
    command = [sys.executable, "-m", "avsnn", "train", "demo", "--device", args.device]
    command += ["--root", str(data), "--run", str(run)]
    return command + [w for setting in (*SIZES[args.size], *settings) for w in ("--set", setting)]


def prepare_demo(root: Path, clips: int) -> Path:
    """Prepare some clips of the demo below a folder; return the folder."""
    words = ["prepare", "demo", "--root", str(root), "--limit", str(clips)]
    subprocess.run([sys.executable, "-m", "avsnn", *words], check=True, capture_output=True)
    return root


def trained_rate(data: Path, run: Path, args: argparse.Namespace) -> float:
    """Return the samples per second that ``avsnn train`` reports of a run."""
    settings = [f"batch_size={args.batch}", f"epochs={args.epochs}", "selection=last"]
    settings.append(f"compute.precision={args.precision}")
    command = train_command(data, run, args, settings)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"avsnn train ended with code {done.returncode}: {done.stderr[-2000:]}")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [float(line["samples_per_second"]) for line in lines]
    return statistics.median(rates[1:] or rates)


def bare_rate(config: RunConfig, device: torch.device, *, passes: int) -> float:
    """Return the samples per second of training steps on batches in memory."""
    settings = config.settings
    choose_precision(settings, device)
    choose_kernels("auto", device)
    torch.manual_seed(settings.seed)
    shapes = open_source(config).shapes
    model = place_network(build_network(config, shapes), settings, device).train()
    optimizer = make_optimizer(model, settings.optimizer)
    batches = load_batches(config, device)

    def train(audio: Tensor, frames: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(settings, device):
            output = model(audio, frames)
        training_loss(output, labels, LossSettings()).total.backward()
        optimizer.step()

    # A CUDA graph on a GPU, as in `avsnn train`.
    step = graphed(train, settings, device, processes=1, say=print)

    def steps() -> None:
        for batch in batches:
            step(*batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    if passes > 1:
        steps()
    began = time.monotonic()
    for _ in range(passes):
        steps()
    return passes * settings.batch_size * len(batches) / (time.monotonic() - began)


def load_batches(config: RunConfig, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return audio images, frames and labels of the first epoch, augmented, on the device."""
    settings = config.settings
    source = open_source(config)
    rows = Parts(config, source).rows_to_train(settings)
    batches = []
    for request in training_requests(
        rows, batch_size=settings.batch_size, seed=settings.seed, epoch=0
    ):
        batch = read_batch(source, request, settings).to(device)
        batches.append((*network_inputs(batch, settings), batch.labels))
    return batches


if __name__ == "__main__":
    main()
