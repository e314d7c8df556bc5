"""Measures whether ``avsnn train`` loses speed to loading and logging, against bare steps.

Run ``python -m benchmarks.end_to_end`` in the project's folder, with the ``dev`` extra installed.
The benchmark prepares the demo. Then two ways take turns: ``avsnn train`` trains one epoch
(published size, B = 8) and reports its samples per second; a bare loop takes the same steps, over
the same batches in the same order from the same weights. The batches of the bare loop are loaded
and augmented before the clock starts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from avsnn.models.losses import LossSettings, training_loss
from avsnn.pipeline.inference.device import choose_kernels
from avsnn.pipeline.inference.inputs import training_inputs
from avsnn.pipeline.inference.network import build_network
from avsnn.pipeline.loading.batch import read_batch
from avsnn.pipeline.loading.dataset import open_source, rows_of_parts
from avsnn.pipeline.loading.order import training_requests
from avsnn.pipeline.runs.config import RunConfig, load_config
from avsnn.pipeline.training.optimizer import make_optimizer
from benchmarks.measuring import print_machine

WORDS = ["model.channels=256", "data.size=128", "batch_size=8", "epochs=1", "selection=last"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=160)
    args = parser.parse_args()
    print_machine("torch")
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as temporary:
        work = Path(temporary)
        command = [sys.executable, "-m", "avsnn"]
        root = ["--root", str(work / "data")]
        limit = ["--limit", str(args.clips)]
        settings_args = [word for setting in WORDS for word in ("--set", setting)]
        subprocess.run(
            [*command, "prepare", "demo", *root, *limit], check=True, capture_output=True
        )
        ratios = []
        for turn in range(args.rounds):
            run = work / f"run{turn}"
            subprocess.run(
                [*command, "train", "demo", *root, "--run", str(run), *settings_args],
                check=True,
                capture_output=True,
            )
            line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
            trained = float(line["samples_per_second"])
            bare = bare_rate(load_config(run))
            ratios.append(trained / bare)
            print(
                f"avsnn train {trained:.2f} samples/s, bare steps {bare:.2f} samples/s", flush=True
            )
    print(f"avsnn train / bare steps: {statistics.median(ratios):.3f}, target 0.95")


def bare_rate(config: RunConfig) -> float:
    """Return the samples per second of training steps on batches in memory."""
    settings, device = config.settings, torch.device("cpu")
    source = open_source(config)
    rows = rows_of_parts(config, source, *settings.train_parts)
    choose_kernels("auto", device)
    torch.manual_seed(settings.seed)
    model = build_network(config).train()
    optimizer = make_optimizer(model, settings.optimizer)
    batches = []
    for request in training_requests(rows, batch_size=8, seed=settings.seed, epoch=0):
        batch = read_batch(source, request, settings)
        batches.append((*training_inputs(batch, settings), batch.labels))
    began = time.monotonic()
    for audio, frames, labels in batches:
        optimizer.zero_grad(set_to_none=True)
        training_loss(model(audio, frames), labels, LossSettings()).total.backward()
        optimizer.step()
    return 8 * len(batches) / (time.monotonic() - began)


if __name__ == "__main__":
    main()
