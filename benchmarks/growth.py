"""Measures how time and memory of a training step grow with T, B, the image side and C.

Run ``python -m benchmarks.growth`` in the project's folder, with the ``dev`` extra installed; on a
GPU with ``--device cuda --middle-batch 32``. The benchmark writes a plot and prints the same
numbers as a table. The network is S-CMRL with alignment. One of the four values changes at a time,
starting from T = 4, B = 8, 128x128 px, C = 256. Each size runs in its own process, and its time is
that of the fastest of several turns.

On a CPU the time is processor time of one thread, because other programs disturb processor time
least. On a GPU the time is by the clock. The memory of a step is the peak of the process (of the
GPU's memory on a GPU) less what the process held before the first step. An exponent is the slope
between a row and the row above, both axes logarithmic: 1 is growth in proportion, 0 is none.
"""

import argparse
from math import log
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl

from benchmarks.measuring import print_machine
from benchmarks.step_ways import Job
from benchmarks.step_worker import FailedError, Worker

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

MIDDLE = {"steps": 4, "batch": 8, "side": 128, "channels": 256}
RANGES = {
    "steps": [1, 2, 4, 8, 16],
    "batch": [1, 2, 4, 8, 16, 32],
    "side": [64, 96, 128, 192, 256],
    "channels": [64, 128, 256, 512],
}
LABELS = {
    "steps": "time steps T",
    "batch": "batch B",
    "side": "side, px",
    "channels": "channels C",
}
#: Exponents of time and of memory for large values: time follows the multiplications, memory the
#: outputs of the convolutions. Both follow the number of pixels, the side squared.
POWERS = {"steps": (1, 1), "batch": (1, 1), "side": (2, 2), "channels": (2, 1)}


class Point(NamedTuple):
    """A measured size: its value, seconds of a step, peak memory and memory of the step in MiB."""

    value: int
    seconds: float
    peak: float
    of_step: float


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=["avsnn", "avsnn-bf16", "avsnn-graph"], default="avsnn")
    parser.add_argument("--picture", type=Path, default=Path(__file__).with_name("growth.png"))
    parser.add_argument("--middle-batch", type=int, default=MIDDLE["batch"])
    parser.add_argument("--only", nargs="+", choices=RANGES, default=list(RANGES))
    for name, values in RANGES.items():
        parser.add_argument(f"--{name}", type=int, nargs="+", default=values, metavar="N")
    args = parser.parse_args()
    print_machine("torch")
    time_name = "by the clock" if args.device == "cuda" else "of processor time"
    print(f"{args.way} on {args.device}, {args.threads} threads, {args.rounds} rounds")
    print(
        f"| changed | value | seconds {time_name} | exponent | peak, MiB | of the step, MiB "
        "| exponent |\n|---|---:|---:|---:|---:|---:|---:|",
        flush=True,
    )
    points_by_name: dict[str, list[Point]] = {}
    # The middle belongs to every series and is measured once.
    measured: dict[tuple[int, ...], Point] = {}
    for name in args.only:
        points = points_by_name.setdefault(name, [])
        for value in sorted(getattr(args, name)):
            sizes = MIDDLE | {"batch": args.middle_batch} | {name: value}
            key = tuple(sizes.values())
            try:
                measured[key] = measured.get(key) or measure(sizes, args)
            except FailedError as error:
                print(f"| {name} | {value} | {error} |", flush=True)
                continue
            points.append(measured[key]._replace(value=value))
            print_row(name, points)
            draw(points_by_name, args, time_name)
    print(f"wrote {args.picture}")


def measure(sizes: dict[str, int], args: argparse.Namespace) -> Point:
    """Return what a step of a size costs; the value of the point is 0.

    Raises:
        FailedError: the size cannot be computed here.
    """
    job = Job(args.way, "training", **sizes, device=args.device, threads=args.threads, events=False)
    worker = Worker(job)
    worker.warm_up()
    turns = [worker.turn() for _ in range(args.rounds)]
    seconds = min(turn.clock if args.device == "cuda" else turn.cpu for turn in turns)
    peak = worker.close()
    return Point(0, seconds, peak / 2**20, (peak - worker.idle_memory) / 2**20)


def print_row(name: str, points: list[Point]) -> None:
    """Print the last of the points, with the slopes between the last two."""
    now = points[-1]
    slopes = [""] * 2
    if len(points) > 1:
        before, step = points[-2], log(now.value / points[-2].value)
        pairs = ((now.seconds, before.seconds), (now.of_step, before.of_step))
        slopes = [f"{log(new / old) / step:.2f}" if min(new, old) > 0 else "" for new, old in pairs]
    print(
        f"| {name} | {now.value} | {now.seconds:.4g} | {slopes[0]} | {now.peak:,.0f} | "
        f"{now.of_step:,.0f} | {slopes[1]} |",
        flush=True,
    )


def draw(points_by_name: dict[str, list[Point]], args: argparse.Namespace, time_name: str) -> None:
    """Draw all points that were measured so far, on logarithmic axes."""
    names = list(points_by_name)
    figure, axes = plt.subplots(
        2, len(names), figsize=(3 * len(names), 5.5), constrained_layout=True, squeeze=False
    )
    for column, name in enumerate(names):
        points = points_by_name[name]
        values = [point.value for point in points]
        for row, (unit, heights) in enumerate(
            (
                (f"s {time_name}", [point.seconds for point in points]),
                ("memory of a step, MiB", [point.of_step for point in points]),
            )
        ):
            axis = axes[row][column]
            axis.loglog(values, heights, "o-", label="measured")
            if points and min(heights) > 0:
                power = POWERS[name][row]
                line = [heights[-1] * (value / values[-1]) ** power for value in values]
                axis.loglog(values, line, ":", color="grey", label=f"exponent {power}")
            axis.set_xticks(values, [str(value) for value in values])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_locator(NullLocator())
            axis.set(xlabel=LABELS[name], ylabel=unit if column == 0 else "")
            axis.grid(alpha=0.3)
            axis.legend(fontsize="small")
    figure.suptitle(
        f"A training step of S-CMRL around T = 4, B = {args.middle_batch}, 128x128, C = 256"
    )
    figure.savefig(args.picture, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
