"""Measures what the tasks of a prepared data set cost the command that hands the tasks out.

``benchmarks.scale`` runs this module in a process of its own. For each stage, the module counts the
tasks of a whole prepare, and hands some of them to a local Dask cluster, whose workers do nothing
and return the record of each unit. Client and scheduler run in this process, so its processor time
is what a task costs both of them.
"""

import argparse
import json
import pickle
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from pathlib import Path
from typing import Any

from avsnn.pipeline.engine.executor import open_worker_pools, tasks_in_flight
from avsnn.pipeline.engine.journal import Record
from avsnn.pipeline.engine.stage import Stage, Unit, records
from avsnn.pipeline.prepare.build_stages import build_as_requested
from benchmarks.scale_data import NAME

WORKERS = 2
#: Number of tasks of each stage that are handed out, after the workers have started.
TASKS = 300


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    args = parser.parse_args()
    stages = build_as_requested(NAME, root=args.root, brings_files=True)
    figures: dict[str, dict[str, float]] = {}
    with open_worker_pools(WORKERS) as pools:
        executor = pools.processes()
        for stage in (stages.fetch, stages.extract, stages.frames, stages.audio):
            began = time.process_time()
            units = sum(1 for _ in stage.units())
            planned = time.process_time() - began
            size = stage.batch_size
            tasks = [[*islice(stage.units(), size)]] * TASKS
            recorded = records(stage)
            answers = [[recorded[unit.name] for unit in task] for task in tasks]
            run(executor, stage, tasks[:20], answers)
            cpu, wall = time.process_time(), time.monotonic()
            run(executor, stage, tasks, answers)
            figures[stage.name] = {
                "units": units,
                "tasks": -(-units // size),
                "bytes": len(pickle.dumps((nothing, stage, tasks[0], answers[0]))),
                "cpu_ms_per_task": 1000 * (time.process_time() - cpu) / TASKS,
                "wall_ms_per_task": 1000 * (time.monotonic() - wall) / TASKS,
                "cpu_us_per_unit_planned": 1e6 * planned / units,
            }
    print(json.dumps({"tasks": figures}))


def run(
    executor: Any, stage: Stage, tasks: Sequence[list[Unit]], answers: Sequence[list[Record]]
) -> None:
    """Hand tasks to workers that do nothing, as many at a time as `run_stage` hands out."""
    running: set[Future[Any]] = set()
    for number, (task, answer) in enumerate(zip(tasks, answers, strict=False)):
        while len(running) >= tasks_in_flight(executor, len(tasks) - number):
            _, running = wait(running, return_when=FIRST_COMPLETED)
        running.add(executor.submit(nothing, stage, task, answer))
    for future in running:
        future.result()


def nothing(_: Stage, __: list[Unit], answer: list[Record]) -> list[Record]:
    """Return the answer."""
    return answer


if __name__ == "__main__":
    # A worker imports `nothing` by the name of this module, which `__main__` is not.
    from benchmarks.scale_tasks import main as run_main

    run_main()
