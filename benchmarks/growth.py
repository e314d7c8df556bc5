"""Measures how time and memory of a training step grow with T, with B and with the image side.

Run ``python -m benchmarks.growth`` in the project's folder, with the ``dev`` extra installed. The
benchmark writes the plot ``benchmarks/growth.png`` and prints the same numbers as a table. The
network is S-CMRL with alignment, C = 256. One of the three values changes at a time, starting from
T = 4, B = 8, 128x128 px. Each size runs in its own process; its time is the fastest of several
steps.
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
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--picture", type=Path, default=Path(__file__).with_name("growth.png"))
    args = parser.parse_args()
    print_machine("torch")
    print("| changed | value | seconds of a step | peak memory, MiB |\n|---|---:|---:|---:|")
    points_by_name: dict[str, list[Point]] = {}
    for name, values in RANGES.items():
        for value in values:
            chosen = MIDDLE | {name: value}
            args.steps, args.side = chosen["steps"], chosen["side"]
            worker = Worker("avsnn", "training", chosen["batch"], args)
            # The first two steps warm up.
            seconds = min([worker.step() for _ in range(args.rounds + 2)][2:])
            point = Point(value, seconds, worker.close() / 2**20)
            points_by_name.setdefault(name, []).append(point)
            print(f"| {name} | {value} | {seconds:.3f} | {point.peak:,.0f} |", flush=True)
            draw(points_by_name, args.picture)
    print(f"wrote {args.picture}")


class Point(NamedTuple):
    """A measured size: its value, the seconds of a step, and the peak memory in MiB."""

    value: int
    seconds: float
    peak: float


def draw(points_by_name: dict[str, list[Point]], picture: Path) -> None:
    """Draw all points that were measured so far."""
    figure, axes = plt.subplots(2, len(RANGES), figsize=(10, 5.5), constrained_layout=True)
    for column, (name, points) in enumerate(points_by_name.items()):
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
