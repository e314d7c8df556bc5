"""Measures tasks in interleaved rounds, and prints rates and ratios; shared by the benchmarks."""

import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, NamedTuple

import psutil


class Cost(NamedTuple):
    """Seconds by the clock, and seconds of processor time."""

    clock: float
    cpu: float


def measure(tasks: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Cost]]:
    """Return the costs of each task, one for each round. The tasks take turns in every round."""
    costs: dict[str, list[Cost]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            clock, cpu = time.perf_counter(), cpu_seconds()
            task()
            costs[name].append(Cost(time.perf_counter() - clock, cpu_seconds() - cpu))
    return costs


def cpu_seconds() -> float:
    """Return the processor time so far of this process and all its descendants, in s."""
    total = 0.0
    for process in process_tree():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def process_tree() -> list[psutil.Process]:
    """Return this process, then all its descendants."""
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def print_machine(*libraries: str) -> None:
    """Print the processor, the load, and the versions of Python and of libraries."""
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(": ")[1] for line in facts if "model name" in line), "unknown")
    load = os.getloadavg()[0]
    print(f"{processor}, {os.cpu_count()} cores, load {load:.1f}, Python {python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in libraries), flush=True)


def print_rates(name: str, costs: list[Cost], count: int, unit: str) -> None:
    """Print the rate per second by the clock: median and range over rounds."""
    rates = sorted(count / cost.clock for cost in costs)
    median = statistics.median(rates)
    print(f"{name}: {median:,.0f} {unit}/s ({rates[0]:,.0f} to {rates[-1]:,.0f})")


def print_ratio(name: str, slow: list[Cost], fast: list[Cost], target: str = "") -> None:
    """Print how many times faster ``fast`` is, by the clock and in processor time."""
    texts = []
    for kind in range(2):
        ratios = sorted(s[kind] / f[kind] for s, f in zip(slow, fast, strict=True) if f[kind])
        texts.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(f"{name}: {texts[0]}, CPU {texts[1]}{target}", flush=True)
