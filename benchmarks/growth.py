"""How a training step grows with T, the batch and the side of the images, in time and memory.

``python -m benchmarks.growth`` in the project's folder, with the ``dev`` extra installed, writes
``benchmarks/growth.png`` and prints the same as a table. S-CMRL with alignment, C = 256; around
T = 4, B = 8, 128x128 one of the three changes. Each step is the fastest of some, in a process of
its own.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

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
    found: dict[str, list[Point]] = {}
    for name, values in RANGES.items():
        for value in values:
            chosen = MIDDLE | {name: value}
            words.steps, words.side = chosen["steps"], chosen["side"]
            worker = Worker("avsnn", "training", chosen["batch"], words)
            # the first two warm up
            seconds = min([worker.step() for _ in range(words.rounds + 2)][2:])
            point = Point(value, seconds, worker.close() / 2**20)
            found.setdefault(name, []).append(point)
            print(f"| {name} | {value} | {seconds:.3f} | {point.peak:,.0f} |", flush=True)
            draw(found, words.picture)
    print(f"wrote {words.picture}")


class Point(NamedTuple):
    """One size, the seconds of its step, and its peak memory in MiB."""

    value: int
    seconds: float
    peak: float


def draw(found: dict[str, list[Point]], picture: Path) -> None:
    """What has been measured so far."""
    figure, axes = plt.subplots(2, len(RANGES), figsize=(10, 5.5), constrained_layout=True)
    for column, (name, points) in enumerate(found.items()):
        values = [point.value for point in points]
        for row, unit in enumerate(("seconds of a step", "peak, MiB")):
            axis = axes[row][column]
            axis.plot(values, [point[row + 1] for point in points], "o-")
            axis.set(xlabel=LABELS[name], ylabel=unit, ylim=(0, None), xticks=values)
            axis.grid(alpha=0.3)
    figure.suptitle("A training step of S-CMRL around T = 4, B = 8, 128x128, C = 256")
    figure.savefig(picture, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
