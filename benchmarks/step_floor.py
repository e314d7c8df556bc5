"""Lower bounds of the time of a step: its products alone, and its operations and bytes."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from avsnn.models import kernels

MATRIX_PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__}
CONVOLUTIONS = {functional.conv1d, functional.conv2d, torch.conv1d, torch.conv2d}


class Products(TorchFunctionMode):
    """Records every convolution and matrix product, with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Tensor], tuple[Any, ...]]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in MATRIX_PRODUCTS | CONVOLUTIONS:
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
    # Both operands of a product of attention learn, also where `attend` hides this from autograd.
    learns = func in MATRIX_PRODUCTS
    operands = [
        value.detach().clone().requires_grad_(learns or value.requires_grad)
        if isinstance(value, Tensor)
        else value
        for value in args
    ]
    tasks = [_task(func, operands)]
    if func in CONVOLUTIONS and operands[0].dim() == 4:
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
            synchronise(operands[0].device)
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


#: Operators of torch that count as products.
PRODUCTS = ("convolution", "convolution_backward", "mm", "bmm", "addmm", "baddbmm")


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


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def limit_of(
    step: Callable[[], object], kind: torch.dtype, device: torch.device
) -> tuple[float, str]:
    """Return a lower bound of the time of a step in s, and one line that says where it is from.

    The bound is the operations divided by the measured rate of large matrix products, plus the
    bytes that must be read and written divided by the measured bandwidth of copying.
    """
    # Imported here, because the import takes 70 MB, which would count in every other process.
    from torch.utils.flop_counter import FlopCounterMode

    step()
    with FlopCounterMode(display=False) as counted, Traffic() as traffic:
        step()
    operations, moved = counted.get_total_flops(), traffic.bytes
    rate, bandwidth = matrix_rate(kind, device), copy_bandwidth(device)
    limit = operations / rate + moved / bandwidth
    return limit, (
        f"{operations / 1e12:.2f} TFLOP at {rate / 1e12:.1f} TFLOP/s and {moved / 1e9:.2f} GB at "
        f"{bandwidth / 1e9:.0f} GB/s make {limit * 1e3:.1f} ms"
    )
