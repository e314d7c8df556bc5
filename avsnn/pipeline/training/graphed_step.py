"""The training step as a CUDA graph: recorded once, then replayed without Python.

A step of the published size launches some thousand kernels, and Python needs longer to launch the
kernels than a GPU needs to compute them. A replay launches all of them at once. The graph reads and
writes the memory that the recorded step used; so inputs are copied into the same tensors before
every replay, and everything that changes from step to step (learning rate, number of the step,
totals) lies in tensors on the device.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from avsnn.errors import RunError
from avsnn.pipeline.runs.train_settings import TrainSettings

# Steps that run one by one before the recording: kernels are compiled, the optimizer gets its
# moments, and libraries take their memory.
EAGER_STEPS = 3


class Recorder(Protocol):
    """Records what a device computes, and computes the same again."""

    def run(self, work: Callable[[], None]) -> None:
        """Run the work before it is recorded."""

    def record(self, work: Callable[[], None]) -> None:
        """Record the work without computing anything.

        Raises:
            RuntimeError: the work cannot be recorded.
        """

    def replay(self) -> None:
        """Compute the recorded work."""


class CudaRecorder:
    """Records the work of a CUDA device in a CUDA graph."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        # The recorded work and the work before it use one stream, which is not the default stream:
        # a graph cannot record the default stream, and autograd keeps the stream of a gradient.
        self._stream = torch.cuda.Stream()

    def run(self, work: Callable[[], None]) -> None:
        """Run the work on the stream of the recording."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> None:
        """Record the work in the graph.

        Raises:
            RuntimeError: the work waits for the device, or a library refuses to be recorded.
        """
        # Threads of the loader pin memory meanwhile, which is no part of the graph.
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            work()

    def replay(self) -> None:
        """Launch the graph."""
        self._graph.replay()


class GraphedStep:
    """Runs a step some times, records the step, and replays the recording from then on.

    Args:
        step: the step, a function of tensors that always have the same shapes.
        recorder: records the step.

    Raises:
        RunError: the step cannot be recorded. torch leaves the device in the middle of the
            recording, so the training cannot go on in this process.
    """

    def __init__(self, step: Callable[..., None], recorder: Recorder) -> None:
        self._step, self._recorder = step, recorder
        self._eager_steps = EAGER_STEPS
        self._inputs: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor) -> None:
        """Take a step with these inputs."""
        if self._eager_steps:
            self._eager_steps -= 1
            self._recorder.run(lambda: self._step(*inputs))
            return
        if not self._inputs:
            self._inputs = self._record(inputs)
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._recorder.replay()

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Record the step; return the tensors that a replay reads."""
        kept = tuple(tensor.clone() for tensor in inputs)
        try:
            self._recorder.record(lambda: self._step(*kept))
        except RuntimeError as error:
            # The end of a recording that has failed raises an error of its own, which hides why.
            first = error.__context__ or error
            reason = (str(first) or type(first).__name__).splitlines()[0]
            raise RunError(
                f"the training step cannot be recorded in a CUDA graph ({reason}); run the command "
                "again with --set compute.cuda_graph=off (train: and with --resume)."
            ) from error
        return kept


def _hindrance(settings: TrainSettings, device: torch.device, *, processes: int) -> str | None:
    """Return why a training step cannot be a CUDA graph, or None if it can.

    Args:
        settings: the settings of the training.
        device: the device that computes.
        processes: number of processes that train together.
    """
    compute = settings.compute
    for holds, reason in (
        (device.type != "cuda", f"the device is {device.type}"),
        (compute.compile, "compute.compile compiles the network"),
        (compute.recompute, "compute.recompute computes blocks twice"),
        (settings.optimizer.accumulate > 1, "optimizer.accumulate cuts a batch into parts"),
        (processes > 1, f"{processes} processes share their gradients"),
    ):
        if holds:
            return reason
    return None


def graphed(
    step: Callable[..., None],
    settings: TrainSettings,
    device: torch.device,
    *,
    processes: int,
    say: Callable[[str], None],
) -> Callable[..., None]:
    """Return a step that becomes a CUDA graph, or the step itself where it cannot.

    Args:
        step: the step, a function of tensors.
        settings: ``compute.cuda_graph``: ``off`` leaves the step alone, ``auto`` records on a GPU,
            ``on`` also says why where the device is no GPU.
        device: the device that computes.
        processes: number of processes that train together.
        say: told why a step is not recorded.
    """
    wanted = settings.compute.cuda_graph
    if wanted == "off" or (wanted == "auto" and device.type != "cuda"):
        return step
    reason = _hindrance(settings, device, processes=processes)
    if reason is not None:
        say(f"the training step runs without a CUDA graph: {reason}")
        return step
    return GraphedStep(step, CudaRecorder())
