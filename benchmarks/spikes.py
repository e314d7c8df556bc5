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

LAYERS = [(32, 64, 64), (64, 128, 32), (128, 256, 16), (256, 256, 8)]
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
    cpu._FEW = cpu._FEW_BACKWARD = 1.0
    print("| layer | pass |", *(f"{density} |" for density in DENSITIES))
    print("|---|---|" + "---:|" * len(DENSITIES))
    for inputs, outputs, side in LAYERS:
        rows: dict[str, list[str]] = {"forward": [], "gradient of weights": []}
        for density in DENSITIES:
            spikes = (torch.rand(FRAMES, inputs, side, side) < density).float()
            packed = spikes.to(torch.uint8)
            weight = torch.randn(outputs, inputs, 3, 3)
            grad = torch.randn(FRAMES, outputs, side, side)
            pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
                "forward": (
                    lambda s=spikes, w=weight: functional.conv2d(s, w, padding=1),
                    lambda p=packed, w=weight: cpu.spike_conv(p, w),
                ),
                "gradient of weights": (
                    lambda g=grad, s=spikes, w=weight: dense_gradient(g, s, w),
                    lambda g=grad, p=packed, w=weight: cpu.spike_conv_backward(g, p, w),
                ),
            }
            for name, pair in pairs.items():
                ratios = []
                for _ in range(words.rounds + 1):
                    dense, by_spikes = (seconds(work) for work in pair)
                    ratios.append(dense / by_spikes)
                rows[name].append(f"{statistics.median(ratios[1:]):.2f}")
        for name, cells in rows.items():
            print(f"| {inputs} to {outputs}, {side}x{side} | {name} |", " | ".join(cells), "|")


def seconds(work: Callable[[], object]) -> float:
    """By the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def dense_gradient(grad: Tensor, spikes: Tensor, weight: Tensor) -> Tensor:
    """By oneDNN."""
    mask = [False, True, False]
    rest = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask)
    return torch.ops.aten.convolution_backward(grad, spikes, weight, None, *rest)[1]  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
