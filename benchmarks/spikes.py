"""When adding weights for each spike is quicker than a convolution, by how many spikes there are.

``python -m benchmarks.spikes`` in the project's folder, with the ``dev`` extra installed. Layers of
the published network at T = 4 and B = 8; both ways in turns; above 1, spikes win. The gradient of
the spikes is a dense convolution either way and is not in here.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from avsnn.models import kernels
from avsnn.models.kernels import cpu
from benchmarks.measuring import print_machine

LAYERS: list[tuple[int, int, tuple[int, ...]]] = [
    (32, 64, (64, 64)), (64, 128, (32, 32)), (128, 256, (16, 16)), (256, 256, (8, 8)),
    (256, 256, (64,)), (1024, 256, (64,)),
]  # fmt: skip
DENSITIES = [0.02, 0.05, 0.1, 0.15, 0.2, 0.3]
FRAMES = 32


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    words = parser.parse_args()
    print_machine("torch")
    kernels.keep_memory()
    # measure beyond the point where the library would turn to convolutions
    cpu.MAX_DENSITY = cpu.MAX_DENSITY_BACKWARD = {"conv": 1.0, "linear": 1.0}
    print("| layer | pass |", *(f"{density} |" for density in DENSITIES))
    print("|---|---|" + "---:|" * len(DENSITIES))
    for inputs, outputs, sides in LAYERS:
        rows: dict[str, list[str]] = {"forward": [], "gradient of weights": []}
        for density in DENSITIES:
            spikes = (torch.rand(FRAMES, inputs, *sides) < density).float()
            weight = torch.randn(outputs, inputs, *((3, 3) if len(sides) == 2 else (1,)))
            grad = torch.randn(FRAMES, outputs, *sides)
            packed, fired = cpu.pack(spikes, weight) or (spikes, 0)
            pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
                "forward": (
                    lambda s=spikes, w=weight: dense(s, w),
                    lambda s=spikes, w=weight: add_weights(s, w),
                ),
                "gradient of weights": (
                    lambda g=grad, s=spikes, w=weight: dense_gradient(g, s, w),
                    lambda g=grad, p=packed, w=weight, n=fired: cpu.spike_conv_backward(g, p, w, n),
                ),
            }
            for name, pair in pairs.items():
                ratios = []
                for _ in range(words.rounds + 1):
                    products, sums = (seconds(work) for work in pair)
                    ratios.append(products / sums)
                rows[name].append(f"{statistics.median(ratios[1:]):.2f}")
        for name, cells in rows.items():
            places = "x".join(map(str, sides))
            print(f"| {inputs} to {outputs}, {places} | {name} |", " | ".join(cells), "|")


def seconds(work: Callable[[], object]) -> float:
    """By the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def dense(spikes: Tensor, weight: Tensor) -> Tensor:
    """By oneDNN."""
    convolve = functional.conv2d if weight.dim() == 4 else functional.conv1d
    return convolve(spikes, weight, padding=weight.shape[-1] // 2)


def add_weights(spikes: Tensor, weight: Tensor) -> Tensor | None:
    """By our kernels, packing included."""
    packed = cpu.pack(spikes, weight)
    return packed and cpu.spike_conv(packed[0], weight, None, packed[1])


def dense_gradient(grad: Tensor, spikes: Tensor, weight: Tensor) -> Tensor:
    """By oneDNN."""
    axes = weight.dim() - 2
    rest = ([1] * axes, [weight.shape[-1] // 2] * axes, [1] * axes, False, [0] * axes, 1)
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward(grad, spikes, weight, None, *rest, mask)[1]  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
