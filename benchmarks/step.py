"""Compares a training step and an evaluation at the published size with the published code.

Run ``python -m benchmarks.step`` in the project's folder, with the ``dev`` extra installed; on a
GPU ``python -m benchmarks.step --device cuda --batch 128``. Each way to compute has its own
process, so each way has its own peak of memory. The ways take turns, one step at a time, so all
ways meet the same load of the machine:

- published: T copies of the input, layer by layer (``published.py``), float32.
- avsnn: as ``avsnn train`` computes.
- avsnn-bf16: the same with ``compute.precision=bf16``, on GPUs and on CPUs with instructions for
  bfloat16.
- floor: only the convolutions and matrix products of the same step, forward and backward, each in
  the faster of two memory layouts.

On a GPU a second lower bound of the time is printed: the operations of a step divided by the
measured rate of large matrix products, plus the bytes that must be read and written divided by the
measured bandwidth of copying.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from avsnn.models import kernels
from avsnn.models.kernels.instruction_set import has_any
from avsnn.models.losses import LossSettings, training_loss
from avsnn.models.zoo import ModelSettings, build
from avsnn.pipeline.runs.train_settings import OptimizerSettings
from avsnn.pipeline.training.optimizer import make_optimizer
from benchmarks.measuring import print_machine
from benchmarks.published import as_published

CLASSES, SIDE = 6, 128


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--steps", type=int, default=4, help="T")
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    print_machine("torch", "numpy")
    if args.device == "cuda":
        print(torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}")
    for batch in args.batch:
        compare(batch, args)


def compare(batch: int, args: argparse.Namespace) -> None:
    """Compare all ways at one batch size."""
    has_bf16 = args.device == "cuda" or has_any("avx512_bf16", "amx_bf16")
    ways = ["published", "avsnn", "floor"] + ["avsnn-bf16"] * has_bf16
    kinds = ["training", "evaluation"]
    workers = {
        (way, kind): Worker(way, kind, batch, args)
        for kind in kinds
        for way in ways
        if (way, kind) != ("floor", "evaluation")
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in workers}
    for turn in range(args.rounds + 2):
        for key, worker in workers.items():
            taken = worker.step()
            # The first two steps warm up.
            seconds[key] += [taken] if turn > 1 else []
    print(
        f"\nB = {batch}, T = {args.steps}, {args.side}x{args.side}, C = 256, "
        f"{args.threads} threads, {args.rounds} rounds"
    )
    for key, taken in seconds.items():
        peak = workers[key].close()
        print(
            f"{key[1]:>10}, {key[0]:<10} {statistics.median(taken) * 1e3:8.1f} ms "
            f"({min(taken) * 1e3:.1f} to {max(taken) * 1e3:.1f}), peak {peak / 2**20:,.0f} MiB"
        )
    for name, above, below, target in (
        ("training, published / avsnn", "published", "avsnn", "1.8 at B = 8, 3 at B = 16"),
        ("training, avsnn / floor", "avsnn", "floor", "at most 1.35"),
    ):
        print_time_ratio(name, seconds[above, "training"], seconds[below, "training"], target)
    if has_bf16 and args.device == "cpu":
        for kind in kinds:
            float32, bf16 = seconds["avsnn", kind], seconds["avsnn-bf16", kind]
            print_time_ratio(f"{kind}, avsnn / avsnn-bf16", float32, bf16, "3 with AMX")
    print_time_ratio(
        "evaluation, published / avsnn",
        seconds["published", "evaluation"],
        seconds["avsnn", "evaluation"],
        "2.5",
    )
    peaks = [workers[way, "training"].peak for way in ("avsnn", "published")]
    print(f"peak memory, avsnn / published: {peaks[0] / peaks[1]:.2f}, target 1/3", flush=True)
    if args.device == "cuda":
        for way in ("avsnn", "avsnn-bf16"):
            taken = seconds[way, "training"]
            print_time_ratio(
                f"training, published / {way}",
                seconds["published", "training"],
                taken,
                "5 in float32, 12 in bfloat16",
            )
            print_limit(way, batch, args, statistics.median(taken))


def print_time_ratio(name: str, above: list[float], below: list[float], target: str) -> None:
    """Print the ratio of the times: median and range over rounds."""
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    print(
        f"{name}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to "
        f"{ratios[-1]:.2f}), target {target}",
        flush=True,
    )


def print_limit(way: str, batch: int, args: argparse.Namespace, seconds: float) -> None:
    """Print the lower bound of the time of a step, and how far the step is above the bound."""
    # Imported here, because the import takes 70 MB, which would count in every other process.
    from torch.utils.flop_counter import FlopCounterMode

    device = torch.device(args.device)
    kind = torch.bfloat16 if way.endswith("bf16") else torch.float32
    step = make_step(way, "training", batch, args.steps, args.side, device)
    step()
    with FlopCounterMode(display=False) as counted, Traffic() as traffic:
        step()
    operations, moved = counted.get_total_flops(), traffic.bytes
    rate, bandwidth = matrix_rate(kind, device), copy_bandwidth(device)
    limit = operations / rate + moved / bandwidth
    print(
        f"{way}: {operations / 1e12:.2f} TFLOP at {rate / 1e12:.1f} TFLOP/s and "
        f"{moved / 1e9:.2f} GB at {bandwidth / 1e9:.0f} GB/s make {limit * 1e3:.1f} ms; the "
        f"step takes {seconds / limit:.2f} times that, target 2.5",
        flush=True,
    )


class Traffic(TorchDispatchMode):
    """Counts the bytes of all operators that must read operands from memory and write results.

    These operators are the products, the neurons, and the backward passes of both. All other
    operators could be computed together with one of these operators.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func.name())
        if name.startswith("avsnn::") or name.removeprefix("aten::") in PRODUCTS:
            self.bytes += sum(map(_size, [*tree_leaves(args), *tree_leaves(out)]))
            # Batch norm reads its input twice: for the statistics, then to normalise.
            self.bytes += _size(args[0]) if "norm_fire" in name else 0
        return out


PRODUCTS = ("convolution", "convolution_backward", "mm", "bmm", "addmm", "baddbmm")


def _size(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def matrix_rate(kind: torch.dtype, device: torch.device) -> float:
    """Return the operations per second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=device, dtype=kind)
    return 2 * side**3 / fastest_seconds(lambda: a @ b, device)


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes per second of copying; read and written bytes both count."""
    source = torch.zeros(2**30 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * _size(source) / fastest_seconds(lambda: target.copy_(source), device)


def fastest_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the fastest of ten calls."""
    taken = []
    for _ in range(10):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        taken.append(time.perf_counter() - began)
    return min(taken)


class Worker:
    """One way to compute, in its own process."""

    def __init__(self, way: str, kind: str, batch: int, args: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=serve, args=(other, way, kind, batch, vars(args)), daemon=True
        )
        self._process.start()
        self.peak = 0

    def step(self) -> float:
        """Compute one step; return its seconds."""
        self._pipe.send("step")
        return float(self._pipe.recv())

    def close(self) -> int:
        """End the process; return its peak memory in bytes, on a GPU the memory of the GPU."""
        self._pipe.send("end")
        self.peak = int(self._pipe.recv())
        self._process.join()
        return self.peak


def serve(pipe: Connection, way: str, kind: str, batch: int, args: dict[str, Any]) -> None:
    """Answer the requests of a :class:`Worker`, in its process."""
    torch.set_num_threads(args["threads"])
    device = torch.device(args["device"])
    step = make_step(way, kind, batch, args["steps"], args["side"], device)
    while pipe.recv() == "step":
        synchronise(device)
        began = time.perf_counter()
        step()
        synchronise(device)
        pipe.send(time.perf_counter() - began)
    pipe.send(peak_memory(device))


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def make_step(
    way: str, kind: str, batch: int, steps: int, side: int, device: torch.device
) -> Callable[[], object]:
    """Return a function that computes one step."""
    torch.manual_seed(0)
    model = build(ModelSettings(steps=steps), classes=CLASSES).to(device)
    audio = torch.randn(batch, 1, side, side, device=device)
    visual = torch.randn(batch, 3, side, side, device=device)
    labels = torch.randint(0, CLASSES, (batch,), device=device)
    if way == "published":
        kernels.choose("torch", device)
        as_published(model, steps=steps)
    else:
        kernels.keep_memory()
    if way == "floor":
        return products_alone(model, audio, visual)
    half = torch.autocast(device.type, torch.bfloat16) if way.endswith("bf16") else nullcontext()
    if kind == "evaluation":
        model.eval()

        def evaluate() -> Tensor:
            with torch.inference_mode(), half:
                return model(audio, visual).logits  # type: ignore[no-any-return]

        return evaluate
    optimizer = (
        torch.optim.AdamW(model.parameters())
        if way == "published"
        else make_optimizer(model, OptimizerSettings())
    )
    for group in optimizer.param_groups:
        group["lr"] = 1e-3

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        with half:
            output = model(audio, visual)
        training_loss(output, labels, LossSettings()).total.backward()
        optimizer.step()

    return train


class Products(TorchFunctionMode):
    """Records every convolution and matrix product, with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Tensor], tuple[Any, ...]]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        known = {functional.conv1d, functional.conv2d, torch.conv1d, torch.conv2d}
        known |= {torch.matmul, Tensor.matmul, Tensor.__matmul__}
        if func in known:
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def products_alone(model: nn.Module, audio: Tensor, visual: Tensor) -> Callable[[], None]:
    """Return a function that computes only the products of a step, forward and backward."""
    with kernels.use_reference(), Products() as products:
        model(audio, visual)
    work = [in_faster_layout(func, args) for func, args in products.calls]

    def run() -> None:
        for task in work:
            task()

    return run


def in_faster_layout(func: Callable[..., Tensor], args: tuple[Any, ...]) -> Callable[[], None]:
    """Return a function that computes one product in the faster of the two memory layouts."""
    operands = [
        value.detach().clone().requires_grad_(value.requires_grad or value.grad_fn is not None)
        if isinstance(value, Tensor)
        else value
        for value in args
    ]
    tasks = [_task(func, operands)]
    is_image = isinstance(operands[0], Tensor) and operands[0].dim() == 4
    if is_image and func not in (torch.matmul, Tensor.matmul, Tensor.__matmul__):
        channels_last = [
            value.detach()
            .contiguous(memory_format=torch.channels_last)
            .requires_grad_(value.requires_grad)
            if isinstance(value, Tensor) and value.dim() == 4
            else value
            for value in operands
        ]
        tasks.append(_task(func, channels_last))
    times = []
    for task in tasks:
        task()
        tries = []
        for _ in range(3):
            began = time.perf_counter()
            task()
            synchronise(operands[0].device)
            tries.append(time.perf_counter() - began)
        times.append(min(tries))
    return tasks[times.index(min(times))]


def _task(func: Callable[..., Tensor], operands: list[Any]) -> Callable[[], None]:
    leaves = [value for value in operands if isinstance(value, Tensor) and value.requires_grad]
    grad = torch.randn_like(func(*operands).detach())

    def run() -> None:
        torch.autograd.grad(func(*operands), leaves, grad)

    return run


if __name__ == "__main__":
    main()
