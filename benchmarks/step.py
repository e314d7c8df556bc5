"""Compares a training step and an evaluation at the published size with the published code.

Run ``python -m benchmarks.step`` in the project's folder, with the ``dev`` extra installed, and
with the ``bench`` extra for SpikingJelly; on a GPU ``python -m benchmarks.step --device cuda
--batch 128``. With ``--events``, a different frame of events is the input of every time step, at
the published sizes of MNISTDVS-NTIDIGITS. Each way to compute has its own process, so each way has
its own peak of memory. The ways take turns, so all ways meet the same load of the machine; on a GPU
a turn is a step to warm up and five measured steps. What compiles has compiled before the first
turn. The ways:

- published: T copies of the input, layer by layer (``published.py``), float32.
- published-compiled: the same under ``torch.compile``.
- published-max-autotune: the same under ``torch.compile(mode="max-autotune")``, on a GPU.
- spikingjelly: published, with the multi-step neurons of SpikingJelly.
- avsnn: the network and the optimizer of ``avsnn train``, float32.
- avsnn-bf16: the same with ``compute.precision=bf16``, on GPUs and on CPUs with instructions for
  bfloat16.
- avsnn-graph, avsnn-bf16-graph: the same training steps as a CUDA graph (``compute.cuda_graph``),
  on a GPU.
- floor: only the convolutions and matrix products of a training step in float32, forward and
  backward, each in the faster of two memory layouts.

On a GPU a second lower bound of the time is printed: the operations of a step divided by the
measured rate of large matrix products, plus the bytes that must be read and written divided by the
measured bandwidth of copying.
"""

import argparse
import statistics

import torch

from benchmarks.measuring import Cost, print_machine, print_ratio
from benchmarks.step_floor import limit_of
from benchmarks.step_ways import WAYS, Job, make_step, tf32_remark, ways_here
from benchmarks.step_worker import FailedError, Worker

Key = tuple[str, str]

#: Ratios of times to print: slow way, fast way, training or evaluation. In brackets the target of
#: a CPU, then the target of an H100 or H200 at B = 128.
RATIOS: dict[tuple[str, str, str], tuple[str, str]] = {
    ("published", "avsnn", "training"): ("1.8 at B = 8, 3 at B = 16", ""),
    ("published-compiled", "avsnn", "training"): ("", "2.6"),
    ("published-max-autotune", "avsnn", "training"): ("", ""),
    ("spikingjelly", "avsnn", "training"): ("", ""),
    ("avsnn", "avsnn-bf16", "training"): ("3 with AMX", ""),
    ("avsnn", "floor", "training"): ("at most 1.35", ""),
    ("published", "avsnn-graph", "training"): ("", ""),
    ("published-compiled", "avsnn-graph", "training"): ("", "2.6"),
    ("published-max-autotune", "avsnn-graph", "training"): ("", ""),
    ("avsnn", "avsnn-graph", "training"): ("", ""),
    ("avsnn-graph", "avsnn-bf16-graph", "training"): ("", ""),
    ("avsnn-graph", "floor", "training"): ("", ""),
    ("published", "avsnn", "evaluation"): ("2.5", "6"),
    ("published-compiled", "avsnn", "evaluation"): ("", ""),
    ("published-max-autotune", "avsnn", "evaluation"): ("", ""),
    ("spikingjelly", "avsnn", "evaluation"): ("", ""),
    ("avsnn", "avsnn-bf16", "evaluation"): ("", ""),
}
#: Targets in ms of a training step on an H100 or H200 at B = 128.
MILLISECONDS = {"avsnn": 25, "avsnn-graph": 25, "avsnn-bf16": 14, "avsnn-bf16-graph": 14}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", action="store_true", help="event frames instead of images")
    parser.add_argument("--batch", type=int, nargs="+", help="by default 8 and 16; 32 of events")
    parser.add_argument("--steps", type=int, help="T, by default 4; 16 of events")
    parser.add_argument("--side", type=int, help="by default 128; 28 of events")
    parser.add_argument("--channels", type=int, default=256, help="C")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="by default all that run here")
    args = parser.parse_args()
    args.batch = args.batch or ([32] if args.events else [8, 16])
    args.steps = args.steps or (16 if args.events else 4)
    args.side = args.side or (28 if args.events else 128)
    print_machine("torch", "numpy")
    if args.device == "cuda":
        print(torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}")
        print(tf32_remark(torch.device("cuda")))
    here, lines = ways_here(args.device)
    print(*lines, sep="\n", end="\n" if lines else "")
    ways = [way for way in here if way in (args.ways or here)]
    for batch in args.batch:
        compare(batch, ways, args)


def compare(batch: int, ways: list[str], args: argparse.Namespace) -> None:
    """Compare all ways at one batch size."""
    print(
        f"\n{'event frames' if args.events else 'images'}, B = {batch}, T = {args.steps}, "
        f"{args.side}x{args.side}, C = {args.channels}, "
        f"{args.threads} threads, {args.rounds} rounds",
        flush=True,
    )
    size = (batch, args.steps, args.side, args.channels, args.device, args.threads, args.events)
    jobs = [
        Job(way, kind, *size)
        for kind in ("training", "evaluation")
        for way in ways
        if kind in WAYS[way].kinds
    ]
    workers = {(job.way, job.kind): Worker(job) for job in jobs}
    costs = measure_in_turns(workers, args.rounds)
    for key, taken in costs.items():
        print_times(key, taken, peak=workers[key].close())
    for (above, below, kind), targets in RATIOS.items():
        target = targets[args.device == "cuda"]
        if (above, kind) in costs and (below, kind) in costs:
            print_ratio(
                f"{kind}, {above} / {below}",
                costs[above, kind],
                costs[below, kind],
                f", target {target}" if target else "",
            )
    for way in ("avsnn", "avsnn-graph", "avsnn-bf16", "avsnn-bf16-graph"):
        for kind in ("training", "evaluation"):
            if (way, kind) in costs and ("published", kind) in costs:
                share = workers[way, kind].peak / workers["published", kind].peak
                target = ", target 1/3" if kind == "training" else ""
                print(f"{kind}, peak memory, {way} / published: {share:.2f}{target}", flush=True)
    if args.device == "cuda":
        print_milliseconds(jobs, costs)


def measure_in_turns(workers: dict[Key, Worker], rounds: int) -> dict[Key, list[Cost]]:
    """Return the costs of each way, one for each round; a way that fails is named and left out."""
    costs: dict[Key, list[Cost]] = {}
    for key, worker in workers.items():
        # One after the other, so that what compiles has the machine for itself.
        try:
            remark = worker.warm_up()
        except FailedError as error:
            print(f"{key[1]}, {key[0]}: left out, {error}", flush=True)
            continue
        costs[key] = []
        if remark:
            print(f"{key[1]}, {key[0]}: {remark}", flush=True)
    for _ in range(rounds):
        for key in list(costs):
            try:
                costs[key].append(workers[key].turn())
            except FailedError as error:
                print(f"{key[1]}, {key[0]}: left out, {error}", flush=True)
                del costs[key]
    return costs


def print_times(key: Key, costs: list[Cost], *, peak: int) -> None:
    """Print the median and the range of the times of a way, and its peak memory."""
    way, kind = key
    clock = sorted(cost.clock * 1e3 for cost in costs)
    cpu = statistics.median(cost.cpu * 1e3 for cost in costs)
    print(
        f"{kind:>10}, {way:<22} {statistics.median(clock):9.1f} ms ({clock[0]:.1f} to "
        f"{clock[-1]:.1f}), {cpu:9.1f} ms of processor time, peak {peak / 2**20:,.0f} MiB",
        flush=True,
    )


def print_milliseconds(jobs: list[Job], costs: dict[Key, list[Cost]]) -> None:
    """Print the times of training steps beside their targets, and beside the lower bound."""
    for job in jobs:
        if (
            job.kind != "training"
            or job.way not in MILLISECONDS
            or (job.way, job.kind) not in costs
        ):
            continue
        seconds = statistics.median(cost.clock for cost in costs[job.way, job.kind])
        print(
            f"training, {job.way}: {seconds * 1e3:.1f} ms, target {MILLISECONDS[job.way]} ms on "
            "an H100 or H200 at B = 128",
            flush=True,
        )
        # A profiler cannot look into a replayed graph; the bound of the eager step is the same.
        if WAYS[job.way].graph:
            continue
        kind = torch.bfloat16 if WAYS[job.way].bf16 else torch.float32
        try:
            limit, line = limit_of(make_step(job)[0], kind, torch.device(job.device))
        except RuntimeError as error:
            print(f"{job.way}: lower bound left out, {str(error).splitlines()[0]}", flush=True)
            continue
        print(f"{job.way}: {line}; the step takes {seconds / limit:.2f} times that", flush=True)


if __name__ == "__main__":
    main()
