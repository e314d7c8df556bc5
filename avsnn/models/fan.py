"""Fan-in and fan-out of the layers of weights: how many connections one neuron has.

Neuromorphic chips limit both. A core of Loihi, for instance, has 4,096 input axons and 4,096 output
axons.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from avsnn.models.watching import watching

if TYPE_CHECKING:
    from collections.abc import Iterator


class Fan(NamedTuple):
    """Fan-in and fan-out of one layer of weights.

    Attributes:
        fan_in: largest number of inputs that one output of the layer reads.
        fan_out: largest number of outputs that read one input of the layer.
    """

    fan_in: int
    fan_out: int


@contextmanager
def fans(model: nn.Module) -> Iterator[dict[str, Fan]]:
    """Measure fan-in and fan-out of every layer of weights that runs while the context is open.

    The context yields a dictionary from the name of the layer to its fans, which fills as layers
    run. Weights count, values do not: a weight that is zero is a connection. A convolution of a
    small image has fewer connections than its kernel has weights, because padding is no neuron.
    Layers on tokens count the connections of one token. What has no weights has no entry: pooling,
    means, additions and the products of attention.

    Args:
        model: the network.
    """
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}
    found: dict[str, Fan] = {}

    def measure(name: str, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        if name not in found:
            found[name] = _fan(layers[name], inputs[0])

    with watching(layers, measure):
        yield found


def _fan(layer: nn.Module, values: Tensor) -> Fan:
    if isinstance(layer, nn.Linear):
        return Fan(layer.in_features, layer.out_features)
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)  # noqa: S101 - `fans` watches no other layer
    fan_in, fan_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    for axis, size in enumerate(values.shape[2:]):
        inputs, outputs = _connections(
            size,
            kernel=layer.kernel_size[axis],
            stride=layer.stride[axis],
            padding=int(layer.padding[axis]),
            dilation=layer.dilation[axis],
        )
        fan_in, fan_out = fan_in * inputs, fan_out * outputs
    return Fan(fan_in, fan_out)


def _connections(
    size: int, *, kernel: int, stride: int, padding: int, dilation: int
) -> tuple[int, int]:
    """Return the most inputs of one output, and the most outputs of one input, along one axis."""
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    inputs_of = [0] * outputs
    outputs_of = [0] * size
    for output in range(outputs):
        for tap in range(kernel):
            place = output * stride - padding + tap * dilation
            if 0 <= place < size:
                inputs_of[output] += 1
                outputs_of[place] += 1
    return max(inputs_of), max(outputs_of)
