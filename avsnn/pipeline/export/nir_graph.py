"""Nodes and edges of a NIR graph, put together layer by layer.

NIR (Neuromorphic Intermediate Representation) knows convolutions, linear layers, sums, poolings and
neurons. NIR knows no batch norm, so batch norms are folded into the weights before them. NIR knows
no max pooling either, but the maximum of spikes is 1 where their sum is above 0, so sum pooling and
a threshold give the same spikes. Where an operation is missing in NIR, the graph has an output for
each operand of the operation, and an input for its result.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from avsnn.models.batch_norm import TokenNorm
from avsnn.models.layers import ChannelLinear, SpikingConv1x1, SpikingMLP
from avsnn.models.neuron import LIF
from avsnn.models.patch_split import PatchSplit, SpikingConv3x3
from avsnn.models.plain_network import fold_batch_norm, tau_of


class Signal(NamedTuple):
    """A value of the graph: the sum of the outputs of some nodes.

    Attributes:
        nodes: names of the nodes.
        shape: shape for one clip and one time step.
    """

    nodes: tuple[str, ...]
    shape: tuple[int, ...]

    def plus(self, other: "Signal") -> "Signal":
        """Return the sum of two signals of one shape."""
        return Signal(self.nodes + other.nodes, self.shape)


class MissingOperation(NamedTuple):
    """An operation that NIR cannot express.

    Attributes:
        name: name of the module of the network that computes the operation.
        operation: what the operation computes.
        reads: names of the output nodes that hold the operands, in the order of the arguments.
        writes: name of the input node that takes the result.
    """

    name: str
    operation: str
    reads: list[str]
    writes: str


class GraphBuilder:
    """Collects the nodes and edges of a NIR graph.

    Args:
        nir: the package ``nir``.

    Attributes:
        nodes: the nodes by name.
        edges: pairs of names.
        missing: the operations that NIR cannot express.
    """

    def __init__(self, nir: Any) -> None:
        self.nir = nir
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.missing: list[MissingOperation] = []

    def add(self, name: str, node: Any, source: Signal | None, shape: tuple[int, ...]) -> Signal:
        """Add a node that reads a signal, and return the node's output."""
        self.nodes[name] = node
        if source is not None:
            self.edges += [(before, name) for before in source.nodes]
        return Signal((name,), shape)

    def input(self, name: str, shape: tuple[int, ...]) -> Signal:
        """Add an input of the graph."""
        return self.add(name, self.nir.Input(np.array(shape)), None, shape)

    def output(self, name: str, source: Signal) -> None:
        """Add an output of the graph."""
        self.add(name, self.nir.Output(np.array(source.shape)), source, source.shape)

    def outside(
        self, name: str, operation: str, operands: dict[str, Signal], shape: tuple[int, ...]
    ) -> Signal:
        """Leave an operation to the user of the graph, and return its result as an input.

        Args:
            name: name of the module that computes the operation.
            operation: what the operation computes.
            operands: the operands by name, in the order of the arguments.
            shape: shape of the result.
        """
        reads = [f"{name}.{operand}" for operand in operands]
        for output, signal in zip(reads, operands.values(), strict=True):
            self.output(output, signal)
        self.missing.append(MissingOperation(name, operation, reads, f"{name}.result"))
        return self.input(f"{name}.result", shape)

    def neurons(self, name: str, layer: LIF, source: Signal) -> Signal:
        """Add a layer of neurons; dt is one time step."""

        def each(value: float) -> NDArray[np.float32]:
            return np.full(source.shape, value, np.float32)

        node = self.nir.LIF(
            tau=each(tau_of(layer)),
            r=each(1),
            v_leak=each(0),
            v_threshold=each(layer.threshold),
            v_reset=each(0),
        )
        return self.add(name, node, source, source.shape)

    def convolution(self, name: str, weight: Tensor, bias: Tensor, source: Signal) -> Signal:
        """Add a 1x1 convolution of tokens, or a 3x3 convolution of frames with padding 1."""
        sides = source.shape[1:]
        on_frames = len(sides) == 2
        kind = self.nir.Conv2d if on_frames else self.nir.Conv1d
        node = kind(
            input_shape=sides if on_frames else sides[0],
            weight=as_array(weight),
            stride=1,
            padding=1 if on_frames else 0,
            dilation=1,
            groups=1,
            bias=as_array(bias),
        )
        return self.add(name, node, source, (weight.shape[0], *sides))

    def spiking_convolution(
        self, name: str, layer: SpikingConv3x3 | SpikingConv1x1, source: Signal
    ) -> Signal:
        """Add convolution, batch norm and neurons, and max pooling if the layer is pooled."""
        weight, bias = fold_batch_norm(layer.conv, layer.norm)
        current = self.convolution(f"{name}.conv", weight, bias, source)
        spikes = self.neurons(f"{name}.lif", layer.lif, current)
        if not isinstance(layer, SpikingConv3x3) or not layer.pooled:
            return spikes
        channels, height, width = spikes.shape
        shape = (channels, (height + 1) // 2, (width + 1) // 2)
        pool = self.nir.SumPool2d(*(np.array([side, side]) for side in (3, 2, 1)))
        pool.input_type = {"input": np.array(spikes.shape)}
        pool.output_type = {"output": np.array(shape)}
        sums = self.add(f"{name}.pool", pool, spikes, shape)
        node = self.nir.Threshold(np.full(shape, 0.5, np.float32))
        return self.add(f"{name}.any", node, sums, shape)

    def patch_split(self, name: str, layer: PatchSplit, image: Signal) -> Signal:
        """Add a patch split, and return tokens ``[C, N]``."""
        frames = image
        for place, stage in enumerate(layer.stages):
            assert isinstance(stage, SpikingConv3x3)  # noqa: S101 - `ModuleList` loses the type
            frames = self.spiking_convolution(f"{name}.stages.{place}", stage, frames)
        position = self.spiking_convolution(f"{name}.position", layer.position, frames)
        return self.flatten(f"{name}.tokens", frames.plus(position), start=1)

    def flatten(self, name: str, source: Signal, *, start: int) -> Signal:
        """Join all axes from ``start`` on."""
        shape = (*source.shape[:start], int(np.prod(source.shape[start:])))
        node = self.nir.Flatten(
            input_type={"input": np.array(source.shape)}, start_dim=start, end_dim=-1
        )
        return self.add(name, node, source, shape)

    def mlp(self, name: str, layer: SpikingMLP, source: Signal) -> Signal:
        """Add an MLP."""
        hidden = self.spiking_convolution(f"{name}.expand", layer.expand, source)
        return self.spiking_convolution(f"{name}.contract", layer.contract, hidden)

    def channel_linear(self, name: str, layer: ChannelLinear, source: Signal) -> Signal:
        """Add a linear layer along the channels, as a 1x1 convolution."""
        return self.convolution(name, layer.weight.unsqueeze(-1), layer.bias, source)

    def token_norm(self, name: str, layer: nn.Module, source: Signal) -> Signal:
        """Add a batch norm of tokens, as a 1x1 convolution with a diagonal matrix."""
        if not isinstance(layer, TokenNorm):
            return source
        scale, shift = layer.scale_and_shift()
        return self.convolution(name, scale.diag().unsqueeze(-1), shift, source)

    def scaled(self, name: str, factor: float | NDArray[np.float32], source: Signal) -> Signal:
        """Add a product with one factor, or with factors that broadcast to the signal."""
        node = self.nir.Scale(np.full(source.shape, factor, np.float32))
        return self.add(name, node, source, source.shape)

    def head(self, name: str, weight: Tensor, bias: Tensor | None, stream: Signal) -> Signal:
        """Add the mean over tokens and a linear head, as one matrix on all values of a stream.

        Args:
            name: name of the head.
            weight: weight of the head, ``[classes, C]``.
            bias: bias of the head, ``[classes]``; None for none.
            stream: the stream, ``[C, N]``.
        """
        tokens = stream.shape[1]
        matrix = as_array((weight.double() / tokens).repeat_interleave(tokens, dim=1).float())
        flat = self.flatten(f"{name}.flat", stream, start=0)
        node = self.nir.Linear(matrix) if bias is None else self.nir.Affine(matrix, as_array(bias))
        return self.add(name, node, flat, (len(weight),))


def as_array(tensor: Tensor) -> NDArray[np.float32]:
    """Return a tensor as a numpy array of its own."""
    return np.array(tensor.detach().cpu().numpy(), np.float32)
