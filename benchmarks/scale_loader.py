"""Reads batches of a prepared data set as a training reads batches, and prints how fast.

``benchmarks.scale`` runs this module in a process of its own. The clock starts when all modules are
imported.
"""

import argparse
import json
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import torch

from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.order import BatchRequest, training_requests
from avsnn.pipeline.loading.parts import Parts
from avsnn.pipeline.runs.config import make_config
from avsnn.pipeline.runs.train_settings import TrainSettings
from benchmarks.scale_data import NAME

BATCH = 64


def main() -> None:
    """Read batches for some seconds, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--read", choices=["cache", "shards"], required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = TrainSettings(batch_size=BATCH)
    began = time.monotonic()
    config = make_config(NAME, settings, root=args.root)
    opener = partial(open_source, config, shards=args.read == "shards")
    with Loader(opener, settings, workers=args.workers, device=torch.device("cpu")) as loader:
        rows = Parts(config, loader.source).rows_to_train(settings)

        def requests() -> Iterator[BatchRequest]:
            for epoch in count():
                yield from training_requests(rows, batch_size=BATCH, seed=0, epoch=epoch)

        batches = loader.read(requests())
        next(batches)
        first = time.monotonic()
        samples = 0
        while time.monotonic() < first + args.seconds:
            samples += len(next(batches).labels)
        rate = samples / (time.monotonic() - first)
        batches.close()  # type: ignore[attr-defined]
    print(json.dumps({"first_batch_s": first - began, "samples_per_s": rate}))


if __name__ == "__main__":
    main()
