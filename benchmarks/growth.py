"""How a training step grows with T, the batch and the side of the images, in time and memory.

``python -m benchmarks.growth`` in the project's folder, with the ``dev`` extra installed, writes
``benchmarks/growth.png`` and prints the same as a table. S-CMRL with alignment, C = 256; around
T = 4, B = 8, 128x128 one of the three changes. Each step is the fastest of some, in a process of
its own.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import torch

from benchmarks.measuring import print_machine
from benchmarks.step import Worker

mpl.use("Agg")
import matplotlib.pyplot as plt

MIDDLE = {"steps": 4, "batch": 8, "side": 128}
RANGES = {"steps": [1, 2, 4, 8, 16], "batch": [1, 2, 4, 8, 16, 32], "side": [64, 96, 128, 192, 256]}
LABELS = {"steps": "time steps T", "batch": "batch B", "side": "side, px"}


def main() -> None:
    """Measures, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--picture", type=Path, default=Path(__file__).with_name("growth.png"))
    words = parser.parse_args()
    print_machine("torch")
    print("| changed | value | seconds of a step | peak memory, MiB |\n|---|---:|---:|---:|")
    figure, axes = plt.subplots(2, 3, figsize=(10, 5.5), constrained_layout=True)
    for column, (name, values) in enumerate(RANGES.items()):
        seconds, peaks = [], []
        for value in values:
            chosen = MIDDLE | {name: value}
            words.steps, words.side = chosen["steps"], chosen["side"]
            worker = Worker("avsnn", "training", chosen["batch"], words)
            # the first two warm up
            taken = [worker.step() for _ in range(words.rounds + 2)][2:]
            seconds.append(min(taken))
            peaks.append(worker.close() / 2**20)
            print(f"| {name} | {value} | {seconds[-1]:.3f} | {peaks[-1]:,.0f} |", flush=True)
        for row, (what, unit) in enumerate(((seconds, "seconds of a step"), (peaks, "peak, MiB"))):
            axis = axes[row][column]
            axis.plot(values, what, "o-")
            axis.set(xlabel=LABELS[name], ylabel=unit, ylim=(0, None), xticks=values)
            axis.grid(alpha=0.3)
    figure.suptitle("A training step of S-CMRL around T = 4, B = 8, 128x128, C = 256")
    figure.savefig(words.picture, dpi=110)
    print(f"wrote {words.picture}")


if __name__ == "__main__":
    main()
