"""Compares a layer of leaky integrate-and-fire neurons of avsnn with those of other libraries.

Run ``python -m benchmarks.neurons`` in the project's folder, with the ``dev`` and ``bench`` extras
installed. With ``--device cuda`` the layer of avsnn is measured in bfloat16 too. All layers get the
same currents, [4, 8, 32, 128, 128] float32, and have the same neuron: tau 2, threshold 1, hard
reset, gradients through the surrogate only. A library that is not installed is named and left out.

The printed bandwidth counts the bytes that must move: the forward pass reads currents and writes
spikes; the backward pass reads gradients and currents and writes gradients. The bandwidth is that
of the fastest round, for the layers and for the copy of the currents.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from avsnn.models import kernels
from avsnn.models.neuron import lif
from benchmarks.measuring import print_machine

SHAPE = (4, 8, 32, 128, 128)
Layer = Callable[[Tensor], Tensor]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    print_machine("torch")
    kernels.keep_memory()
    print(f"{list(SHAPE)} on {device}, {torch.get_num_threads()} threads, {args.rounds} rounds")
    current = torch.randn(SHAPE, device=device) + 0.5
    layers: dict[str, Layer] = {}
    for name, maker in MAKERS.items():
        try:
            layers[name] = maker(device)
        except ImportError as error:
            print(f"{name}: left out, {error}")
    if device.type == "cuda":
        layers["avsnn, bfloat16"] = layers["avsnn"]
    expected = layers["avsnn"](current)
    grad = torch.ones_like(expected)
    forward: dict[str, list[float]] = {name: [] for name in layers}
    both: dict[str, list[float]] = {name: [] for name in layers}
    equal = {}
    for turn in range(args.rounds + 1):
        for name, layer in layers.items():
            kind = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
            layer_input, layer_grad = current.to(kind), grad.to(kind)
            with torch.no_grad():
                seconds, spikes = timed(layer, layer_input, device)
            equal[name] = float((spikes == expected).float().mean())
            learning = layer_input.clone().requires_grad_()
            twice, _ = timed(lambda x, f=layer, g=layer_grad: backward(f, x, g), learning, device)
            if turn:
                forward[name].append(seconds)
                both[name].append(twice)
    copied = torch.empty_like(current)
    copy = min(timed(copied.copy_, current, device)[0] for _ in range(9))
    print(f"copying the currents: {2 * 4 * current.numel() / copy / 1e9:.1f} GB/s")
    for name in layers:
        size = (2 if name.endswith("bfloat16") else 4) * current.numel()
        once, both_ways = statistics.median(forward[name]), statistics.median(both[name])
        fastest = 2 * size / min(forward[name]) / 1e9, 5 * size / min(both[name]) / 1e9
        print(
            f"{name:<28} forward {once * 1e3:8.2f} ms ({fastest[0]:5.1f} GB/s), with backward "
            f"{both_ways * 1e3:8.2f} ms ({fastest[1]:5.1f} GB/s), {equal[name]:.4%} of spikes equal"
        )


def timed(
    work: Callable[[Tensor], Tensor], current: Tensor, device: torch.device
) -> tuple[float, Tensor]:
    """Return the seconds of a call, and its result."""
    began = time.perf_counter()
    out = work(current)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, out


def backward(layer: Layer, current: Tensor, grad: Tensor) -> Tensor:
    """Run the forward and the backward pass; return the spikes."""
    spikes = layer(current)
    spikes.backward(grad)
    return spikes


def avsnn_layer(name: str) -> Callable[[torch.device], Layer]:
    """Return a maker of the layer of avsnn, with the kernels of that name."""

    def make(device: torch.device) -> Layer:
        def layer(current: Tensor) -> Tensor:
            kernels.choose(name, device)
            return lif(current)

        return layer

    return make


def spikingjelly(device: torch.device) -> Layer:
    """Return the multi-step layer of SpikingJelly."""
    neuron = importlib.import_module("spikingjelly.activation_based.neuron")
    surrogate = importlib.import_module("spikingjelly.activation_based.surrogate")
    node = neuron.LIFNode(
        tau=2.0, surrogate_function=surrogate.Sigmoid(4.0), detach_reset=True, step_mode="m"
    ).to(device)

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
