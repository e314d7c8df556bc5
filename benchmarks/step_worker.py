"""A process that computes one way of a step, and answers with what each turn cost."""

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from avsnn.pipeline.training.graphed_step import EAGER_STEPS
from benchmarks.measuring import Cost
from benchmarks.step_ways import WAYS, Job, graphs_compiled, make_step

# Steps between two looks at the clock. The host of a GPU runs ahead of the GPU, as in training.
STEPS_OF_A_TURN = {"cpu": 1, "cuda": 5}
# The compiler's CUDA graphs compile, record and replay; `GraphedStep` does the last two after its
# eager steps.
WARM_UP_STEPS = {"cpu": 2, "cuda": EAGER_STEPS + 2}


class FailedError(Exception):
    """A way cannot be computed here; the message is one line that says why."""


class Worker:
    """One way to compute, in its own process, so that the way has its own peak of memory."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, job), daemon=True)
        self._process.start()
        # Without this copy, the pipe ends when the process ends.
        other.close()
        self.peak = 0
        self.idle_memory = 0

    def warm_up(self) -> str:
        """Build the step and compute the step until nothing compiles any more; return a remark.

        Raises:
            FailedError: the way cannot be computed here.
        """
        remark, self.idle_memory = self._ask("warm up")
        return str(remark)

    def turn(self) -> Cost:
        """Compute the steps of one turn; return the cost of one step.

        Raises:
            FailedError: the step failed.
        """
        return Cost(*self._ask("turn"))

    def close(self) -> int:
        """End the process; return its peak memory in bytes, on a GPU the memory of the GPU."""
        (self.peak,) = self._ask("end")
        # A process that compiled ends its compiler's processes too, which may take a minute.
        self._process.join(timeout=5)
        self._process.kill()
        self._process.join()
        return self.peak

    def _ask(self, request: str) -> tuple:  # type: ignore[type-arg]
        try:
            self._pipe.send(request)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            raise FailedError(f"its process ended with code {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise FailedError(answer)
        return tuple(answer)


def serve(pipe: Connection, job: Job) -> None:
    """Answer the requests of a :class:`Worker`, in its process; a string says what failed."""
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    try:
        if pipe.recv() != "warm up":
            return
        step, remark = make_step(job)
        idle_memory = memory_in_use(device)
        warm_up(step, job)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        pipe.send((remark, idle_memory))
        while pipe.recv() == "turn":
            pipe.send(measure_turn(step, device))
        pipe.send((peak_memory(job),))
    except (EOFError, BrokenPipeError):
        # The benchmark has ended.
        pass
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        pipe.send(f"{type(error).__name__}: {' '.join(lines[:2])[:300]}")


def warm_up(step, job: Job) -> None:  # type: ignore[no-untyped-def]
    """Compute steps until a step compiles nothing."""
    for _ in range(WARM_UP_STEPS[job.device]):
        step()
    if WAYS[job.way].compile_mode:
        before = -1
        while before != graphs_compiled():
            before = graphs_compiled()
            step()


def measure_turn(step, device: torch.device) -> Cost:  # type: ignore[no-untyped-def]
    """Return what a step costs, as the mean over the steps of a turn."""
    count = STEPS_OF_A_TURN[device.type]
    if device.type == "cuda":
        # After `empty_cache`, the first step asks the driver for memory again.
        step()
        torch.cuda.synchronize(device)
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    cost = Cost((time.perf_counter() - clock) / count, (time.process_time() - cpu) / count)
    if device.type == "cuda":
        # The other ways need the memory of the GPU in their turns.
        torch.cuda.empty_cache()
    return cost


def memory_in_use(device: torch.device) -> int:
    """Return the bytes in use: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status_of_process("VmRSS")


def peak_memory(job: Job) -> int:
    """Return the peak memory in bytes of the steps on a GPU, or of this process on a CPU."""
    if job.device != "cuda":
        return _status_of_process("VmHWM")
    if WAYS[job.way].holds_graph:
        # A CUDA graph keeps its memory between two replays, and nothing counts as allocated.
        return torch.cuda.max_memory_reserved()
    return torch.cuda.max_memory_allocated()


def _status_of_process(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024
