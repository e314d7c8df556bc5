"""Compares a layer of leaky integrate-and-fire neurons of avsnn with those of other libraries.

Run ``python -m benchmarks.neurons`` in the project's folder, with the ``dev`` and ``bench`` extras
installed. With ``--device cuda`` the layer of avsnn is measured in bfloat16 too. All layers get the
same currents, [4, 8, 32, 128, 128] float32 (on a GPU [4, 64, 32, 128, 128]), and have the same
neuron: tau 2, threshold 1, hard reset, no gradient through the reset. In the layers of the other
libraries, a gradient passes through time, which avsnn cuts as published. A library that is not
installed is named and left out.

The printed bandwidth counts the bytes that must move: the forward pass reads currents and writes
spikes; the backward pass reads gradients and currents and writes gradients. The bandwidth is that
of the fastest round, for the layers and for the copy of the currents. On a GPU a round is ten calls
one after the other, so that the host prepares a call while the GPU computes the call before.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from avsnn.models import kernels
from avsnn.models.neuron import lif
from benchmarks.measuring import print_machine

SHAPES = {"cpu": (4, 8, 32, 128, 128), "cuda": (4, 64, 32, 128, 128)}
CALLS = {"cpu": 1, "cuda": 10}
Layer = Callable[[Tensor], Tensor]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", type=int, nargs="+", help="T, B and the shape of one frame")
    args = parser.parse_args()
    device = torch.device(args.device)
    shape = args.shape or SHAPES[device.type]
    print_machine("torch")
    if device.type == "cuda":
        print(torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}")
    else:
        kernels.keep_memory()
    print(f"{list(shape)} on {device}, {torch.get_num_threads()} threads, {args.rounds} rounds")
    current = torch.randn(shape, device=device) + 0.5
    layers: dict[str, Layer] = {}
    for name, maker in MAKERS.items():
        try:
            layers[name] = maker(device)
        except ImportError as error:
            print(f"{name}: left out, {error}")
    if device.type == "cuda":
        layers["avsnn, bfloat16"] = layers["avsnn"]
    if "SpikingJelly, multi-step" in layers:
        print(f"SpikingJelly computes with {spikingjelly_provider(device)}")
    compare(layers, current, args.rounds)


def compare(layers: dict[str, Layer], current: Tensor, rounds: int) -> None:
    """Measure the layers in turns, and print their times and bandwidths."""
    expected = layers["avsnn"](current)
    forward: dict[str, list[float]] = {name: [] for name in layers}
    both: dict[str, list[float]] = {name: [] for name in layers}
    equal = {}
    for turn in range(rounds + 1):
        for name, layer in layers.items():
            layer_input = current.to(_kind(name))
            with torch.no_grad():
                seconds, spikes = timed(layer, layer_input)
            equal[name] = float((spikes == expected).float().mean())
            del spikes
            learning = layer_input.clone().requires_grad_()
            grad = torch.ones_like(learning)
            twice, _ = timed(partial(backward, layer, grad=grad), learning)
            # The first round compiles and warms up.
            if turn:
                forward[name].append(seconds)
                both[name].append(twice)
    copied = torch.empty_like(current)
    copy = min(timed(copied.copy_, current)[0] for _ in range(9))
    bandwidth = 2 * 4 * current.numel() / copy
    print(f"copying the currents: {bandwidth / 1e9:.1f} GB/s")
    for name in layers:
        size = torch.empty(0, dtype=_kind(name)).element_size() * current.numel()
        parts = []
        for title, taken, moved in (
            ("forward", forward[name], 2 * size),
            ("with backward", both[name], 5 * size),
        ):
            rate = moved / min(taken)
            parts.append(
                f"{title} {statistics.median(taken) * 1e3:8.2f} ms ({rate / 1e9:6.1f} GB/s, "
                f"{rate / bandwidth:4.0%} of a copy)"
            )
        print(f"{name:<28} {', '.join(parts)}, {equal[name]:.4%} of spikes equal", flush=True)


def _kind(name: str) -> torch.dtype:
    return torch.bfloat16 if name.endswith("bfloat16") else torch.float32


def timed(work: Callable[[Tensor], Tensor], current: Tensor) -> tuple[float, Tensor]:
    """Return the seconds of a call, the mean over the calls of a round; and the last result."""
    is_cuda, count = current.is_cuda, CALLS[current.device.type]
    if is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(count):
        out = work(current)
    if is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / count, out


def backward(layer: Layer, current: Tensor, grad: Tensor) -> Tensor:
    """Run the forward and the backward pass; return the spikes."""
    current.grad = None
    spikes = layer(current)
    spikes.backward(grad)
    return spikes.detach()


def avsnn_layer(name: str) -> Callable[[torch.device], Layer]:
    """Return a maker of the layer of avsnn, with the kernels of that name."""

    def make(device: torch.device) -> Layer:
        def layer(current: Tensor) -> Tensor:
            kernels.choose(name, device)
            return lif(current)

        return layer

    return make


def spikingjelly_node(*, tau: float, threshold: float) -> Any:
    """Return the multi-step layer of SpikingJelly, which keeps its state until ``reset``."""
    neuron = importlib.import_module("spikingjelly.activation_based.neuron")
    surrogate = importlib.import_module("spikingjelly.activation_based.surrogate")
    return neuron.LIFNode(
        tau=tau,
        v_threshold=threshold,
        surrogate_function=surrogate.Sigmoid(4.0),
        detach_reset=True,
        step_mode="m",
    )


def spikingjelly_provider(device: torch.device) -> str:
    """Return the name of the implementation that SpikingJelly chooses on a device."""
    functional = importlib.import_module("spikingjelly.activation_based.functional")
    return str(functional.neuron_implementation("lif", device)["implementation"])


def spikingjelly(device: torch.device) -> Layer:
    """Return the multi-step layer of SpikingJelly as a function of the currents."""
    node = spikingjelly_node(tau=2.0, threshold=1.0).to(device)

    def layer(current: Tensor) -> Tensor:
        node.reset()
        return node(current)  # type: ignore[no-any-return]

    return layer


def snntorch(device: torch.device) -> Layer:
    """Return the leaky neuron of snnTorch, called step by step."""
    snn = importlib.import_module("snntorch")
    node = snn.Leaky(beta=0.5, reset_mechanism="zero", reset_delay=False).to(device)

    def layer(current: Tensor) -> Tensor:
        membrane = torch.zeros_like(current[0])
        train = []
        for x in current:
            spikes, membrane = node(0.5 * x, membrane)
            train.append(spikes)
        return torch.stack(train)

    return layer


def norse(device: torch.device) -> Layer:
    """Return the neuron of norse without a synapse, called step by step."""
    library = importlib.import_module("norse.torch")
    parameters = library.LIFBoxParameters(tau_mem_inv=torch.as_tensor(500.0, device=device))
    node = library.LIFBoxCell(p=parameters, dt=0.001)

    def layer(current: Tensor) -> Tensor:
        state, train = None, []
        for x in current:
            spikes, state = node(x, state)
            train.append(spikes)
        return torch.stack(train)

    return layer


MAKERS: dict[str, Callable[[torch.device], Layer]] = {
    "avsnn": avsnn_layer("auto"),
    "avsnn, kernels=torch": avsnn_layer("torch"),
    "SpikingJelly, multi-step": spikingjelly,
    "snnTorch": snntorch,
    "norse": norse,
}


if __name__ == "__main__":
    main()
