"""What the benchmarks share: rounds side by side in one run, and how ratios are told."""

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
    """Seconds by the clock, and of processor time."""

    clock: float
    cpu: float


def measure(tasks: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Cost]]:
    """Costs of each task, round by round."""
    costs: dict[str, list[Cost]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            clock, cpu = time.perf_counter(), cpu_seconds()
            task()
            costs[name].append(Cost(time.perf_counter() - clock, cpu_seconds() - cpu))
    return costs


def cpu_seconds() -> float:
    """Processor time so far of this process and all below it."""
    total = 0.0
    for process in family():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def family() -> list[psutil.Process]:
    """The processes of this run."""
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def print_machine(*libraries: str) -> None:
    """Where and with what."""
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(": ")[1] for line in facts if "model name" in line), "unknown")
    load = os.getloadavg()[0]
    print(f"{processor}, {os.cpu_count()} cores, load {load:.1f}, Python {python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in libraries), flush=True)


def print_rates(name: str, costs: list[Cost], count: int, unit: str) -> None:
    """So many per second by the clock, median and range."""
    rates = sorted(count / cost.clock for cost in costs)
    median = statistics.median(rates)
    print(f"{name}: {median:,.0f} {unit}/s ({rates[0]:,.0f} to {rates[-1]:,.0f})")


def print_ratio(name: str, base: list[Cost], ours: list[Cost], target: str = "") -> None:
    """How many times faster ``ours`` is, by the clock and in processor time."""
    told = []
    for kind in range(2):
        ratios = sorted(b[kind] / o[kind] for b, o in zip(base, ours, strict=True) if o[kind])
        told.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(f"{name}: {told[0]}, CPU {told[1]}{target}", flush=True)
