"""Measures at which share of spikes adding weights is faster than a dense convolution.

Run ``python -m benchmarks.spikes`` in the project's folder, with the ``dev`` extra installed. The
layers are those of the published network at T = 4 and B = 8. The two ways take turns. A printed
ratio above 1 means that adding the weights of the spikes is faster. The gradient of the spikes is
not measured, because both ways compute that gradient with a dense convolution.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

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
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print_machine("torch")
    kernels.keep_memory()
    # Limits of 1 keep the library from turning to dense convolutions where there are many spikes.
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
                    partial(dense, spikes, weight),
                    partial(add_weights, spikes, weight),
                ),
                "gradient of weights": (
                    partial(dense_gradient, grad, spikes, weight),
                    partial(cpu.spike_conv_backward, grad, packed, weight, fired),
                ),
            }
            for name, pair in pairs.items():
                ratios = []
                for _ in range(args.rounds + 1):
                    dense_s, spikes_s = (seconds(work) for work in pair)
                    ratios.append(dense_s / spikes_s)
                rows[name].append(f"{statistics.median(ratios[1:]):.2f}")
        for name, cells in rows.items():
            size = "x".join(map(str, sides))
            print(f"| {inputs} to {outputs}, {size} | {name} |", " | ".join(cells), "|")


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of a call by the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def dense(spikes: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution as oneDNN computes it."""
    convolve = functional.conv2d if weight.dim() == 4 else functional.conv1d
    return convolve(spikes, weight, padding=weight.shape[-1] // 2)


def add_weights(spikes: Tensor, weight: Tensor) -> Tensor | None:
    """Return the convolution as the kernels of avsnn compute it; the time includes the packing."""
    packed = cpu.pack(spikes, weight)
    return packed and cpu.spike_conv(packed[0], weight, None, packed[1])


def dense_gradient(grad: Tensor, spikes: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of the weights as oneDNN computes it."""
    axes = weight.dim() - 2
    rest = ([1] * axes, [weight.shape[-1] // 2] * axes, [1] * axes, False, [0] * axes, 1)
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward(grad, spikes, weight, None, *rest, mask)[1]  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
