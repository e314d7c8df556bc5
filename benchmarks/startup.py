"""Measures how long ``avsnn train`` takes from its start to its first finished step.

Run ``python -m benchmarks.startup`` in the project's folder, with the ``dev`` extra installed; on a
GPU with ``--device cuda``. The benchmark prepares the demo, or takes the demo that ``--data``
names, and trains the demo as shipped. *Cold* starts with an empty folder for everything that is
compiled on first use (``XDG_CACHE_HOME``, ``TRITON_CACHE_DIR``), and *warm* starts again with the
same folder. The files of Python and torch are in the page cache in both. The clock stops when
``avsnn train --save-every 1`` begins to write its first resume point, which it does right after the
first step. For comparison, the import of torch in a fresh process is measured as well. Processor
time counts the command and its children, such as the compiler.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.end_to_end import add_demo_arguments, prepare_demo, train_command
from benchmarks.measuring import Cost, print_machine

POLL_S = 0.005


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_demo_arguments(parser, size="demo")
    args = parser.parse_args()
    print_machine("torch")
    print(f"{args.size} size on {args.device}, {args.rounds} rounds", flush=True)
    costs: dict[str, list[Cost]] = {"import torch": [], "cold": [], "warm": []}
    with tempfile.TemporaryDirectory(prefix="avsnn-bench-") as temporary:
        work = Path(temporary)
        data = args.data or prepare_demo(work / "data", args.clips)
        # Brings the files of Python and torch into the page cache.
        time_to_first_step(data, work / "first", work / "first-caches", args)
        for turn in range(args.rounds):
            began, cpu = time.monotonic(), cpu_of_children()
            subprocess.run([sys.executable, "-c", "import torch"], check=True)
            cost = Cost(time.monotonic() - began, cpu_of_children() - cpu)
            costs["import torch"].append(cost)
            caches = work / f"caches{turn}"
            for name in ("cold", "warm"):
                run = work / f"{name}{turn}"
                costs[name].append(time_to_first_step(data, run, caches, args))
    for name, taken in costs.items():
        clock = sorted(cost.clock for cost in taken)
        cpu = statistics.median(cost.cpu for cost in taken)
        print(
            f"{name:<12} {statistics.median(clock):6.2f} s ({clock[0]:.2f} to {clock[-1]:.2f}), "
            f"{cpu:6.2f} s of processor time",
            flush=True,
        )


def cpu_of_children() -> float:
    """Return the processor time so far of all children that have ended, in s."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def time_to_first_step(data: Path, run: Path, caches: Path, args: argparse.Namespace) -> Cost:
    """Return the cost of ``avsnn train`` from its start to the end of its first step."""
    command = [*train_command(data, run, args), "--save-every", "1"]
    environment = os.environ | {
        "XDG_CACHE_HOME": str(caches),
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
    }
    checkpoints, log = run / "checkpoints", run.with_suffix(".log")
    began, cpu = time.monotonic(), cpu_of_children()
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    while not (checkpoints.is_dir() and any(checkpoints.iterdir())):
        if process.poll() is not None:
            raise SystemExit(f"avsnn train ended too early: {log.read_text()[-2000:]}")
        time.sleep(POLL_S)
    seconds = time.monotonic() - began
    process.kill()
    process.wait()
    return Cost(seconds, cpu_of_children() - cpu)


if __name__ == "__main__":
    main()
