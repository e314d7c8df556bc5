"""Trainings at the same time: each is the command ``avsnn train`` in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from avsnn.errors import RunError
from avsnn.pipeline.engine.children import (
    children_block_signals,
    keep_current_folder_off_children,
    usable_cores,
)
from avsnn.pipeline.engine.lock import BusyError, require_no_writer
from avsnn.pipeline.engine.progress import CourseOfWork, Progress
from avsnn.pipeline.experiments.experiment import Ended, Experiment, HowToRun, busy_error
from avsnn.pipeline.inference.device import choose_device
from avsnn.pipeline.runs.metrics import metrics_path
from avsnn.pipeline.training.train import LOG

# How often the children are looked at, in s.
INTERVAL_S = 0.2

# How long a child may take to save its training when it is told to end, in s. Slurm waits 30 s
# before it ends a job by force.
GRACE_S = 20

# The words that come before every sentence by which a command ends.
MARK = "avsnn: "


class Child(NamedTuple):
    """A training in a process of its own.

    Attributes:
        experiment: the run.
        process: the process of ``avsnn train``.
        slot: a number below the number of jobs that no other running child has.
        began: when the process was started, on the monotonic clock.
    """

    experiment: Experiment
    process: subprocess.Popen[bytes]
    slot: int
    began: float

    @property
    def failure(self) -> str:
        """Why the process ended without a trained network; empty if the network is trained."""
        code = self.process.returncode
        if not code:
            return ""
        log = self.experiment.folder / LOG
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        if code > 0 and lines and lines[-1].startswith(MARK):
            return lines[-1].removeprefix(MARK)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"the training was ended by {how}; {log} says how far it came."


def train_at_once(
    experiments: Sequence[Experiment],
    *,
    jobs: int,
    how: HowToRun,
    progress: Progress,
    say: Callable[[str], None],
) -> Generator[Ended]:
    """Train runs in child processes; yield each run when its training has ended.

    The output of a child goes to ``log.txt`` in the run folder. Children that still run when the
    iteration is left save their trainings and end.

    Args:
        experiments: the runs; no two share a folder.
        jobs: number of children at the same time; the children share the cores.
        how: how the runs are carried out.
        progress: told of every epoch.
        say: gets one sentence at a time that a person should read.

    Raises:
        RunError: another command trains one of the runs, or no process can be started.
    """
    waiting = list(enumerate(experiments, start=1))
    running: list[Child] = []
    ended: list[Ended] = []
    epochs = {e.folder: _epochs_done(e.folder) for e in experiments}
    total = sum(e.config.settings.epochs - epochs[e.folder] for e in experiments)
    progress.start("trainings", max(1, total), "epochs")
    try:
        while waiting or running or ended:
            while waiting and len(running) < jobs:
                number, experiment = waiting.pop(0)
                say(CourseOfWork(f"{experiment.name} ({number} of {len(experiments)})"))
                _start(experiment, running, min(jobs, len(experiments)), how)
            # The caller evaluates these runs while the next trainings run.
            yield from ended
            time.sleep(INTERVAL_S)
            now = time.monotonic()
            ended = [
                Ended(child.experiment, now - child.began, child.failure)
                for child in running
                if child.process.poll() is not None
            ]
            for folder in [child.experiment.folder for child in running]:
                before, epochs[folder] = epochs[folder], _epochs_done(folder)
                if epochs[folder] > before:
                    progress.advance(epochs[folder] - before)
            running = [child for child in running if child.process.returncode is None]
    finally:
        progress.stop()
        _end(running)


def _start(experiment: Experiment, running: list[Child], jobs: int, how: HowToRun) -> None:
    """Start the training of a run, and add the training to the running children.

    Args:
        experiment: the run.
        running: the running children, fewer than ``jobs``.
        jobs: number of children that share the cores.
        how: how the run is carried out.
    """
    try:
        require_no_writer(experiment.folder)
    except BusyError:
        raise busy_error(experiment.folder) from None
    experiment.folder.mkdir(parents=True, exist_ok=True)
    keep_current_folder_off_children()
    environment = {"OMP_NUM_THREADS": str(max(1, usable_cores() // jobs)), **os.environ}
    slot = min({*range(jobs)} - {child.slot for child in running})
    if len(gpus := _gpus(how.device)) > 1:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    # Ctrl-C reaches every process of a terminal. This process tells its children to end by SIGTERM,
    # because a training saves itself at SIGTERM where it stands.
    with (experiment.folder / LOG).open("ab") as log, children_block_signals(signal.SIGINT):
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "avsnn", *experiment.train_words(how)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        except OSError as error:
            raise RunError(f"no process can be started here: {error.strerror}.") from None
        # A signal that came meanwhile arrives when the context is left, and ends these children.
        running.append(Child(experiment, process, slot, time.monotonic()))


def _gpus(device: str) -> list[str]:
    """Return the names of the GPUs that this process may use."""
    if choose_device(device).type != "cuda":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))


def _epochs_done(folder: Path) -> int:
    try:
        return metrics_path(folder).read_bytes().count(b"\n")
    except OSError:
        return 0


def _end(children: Sequence[Child]) -> None:
    """Tell children to save their trainings and to end; end by force whoever does not."""
    try:
        for child in children:
            child.process.terminate()
        deadline = time.monotonic() + GRACE_S
        for child in children:
            child.process.wait(max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
