"""Layers that the networks are made of: linear layers, and convolution with norm and neurons.

Features are ``[T, B, C, N]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from avsnn.models.batch_norm import BatchNorm
from avsnn.models.spike_conv import SpikeConv1d
from avsnn.models.token_layout import has_channels_innermost, linear_along_channels

if TYPE_CHECKING:
    from avsnn.models.neuron import LIF, NeuronFactory


def _init_as_published(layer: nn.Linear) -> None:
    """Set the weights as published: truncated normal with std 0.02, bias 0."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)


def published_linear(*, inputs: int, outputs: int) -> nn.Linear:
    """Build a linear layer on the last axis with the published initialisation."""
    layer = nn.Linear(inputs, outputs)
    _init_as_published(layer)
    return layer


class ChannelLinear(nn.Linear):
    """A linear layer along the channel axis: ``[T, B, C, N]`` to ``[T, B, C', N]``.

    Saved for backward: the input.
    """

    def __init__(self, *, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        _init_as_published(self)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[T, B, C, N]`` to ``[T, B, C', N]``."""
        if has_channels_innermost(features):
            return linear_along_channels(features, self.weight, self.bias)
        T, B, C, N = features.shape
        # A 1x1 convolution computes the same along the channel axis, so no tensor is transposed.
        out = nn.functional.conv1d(
            features.reshape(T * B, C, N), self.weight.unsqueeze(-1), self.bias
        )
        return out.view(T, B, -1, N)


class SpikingConv1x1(nn.Module):
    """1x1 convolution, batch norm, LIF: ``[T, B, C, N]`` to spikes ``[T, B, C', N]``.

    Saved for backward: the input (one byte per value where spikes are convolved on a CPU) and the
    output of the convolution, so ``C + C'`` values for each step, clip and token.
    """

    def __init__(self, *, inputs: int, outputs: int, bias: bool, lif: LIF) -> None:
        super().__init__()
        self.conv = SpikeConv1d(inputs=inputs, outputs=outputs, bias=bias)
        self.norm = BatchNorm(outputs)
        self.lif = lif

    def forward(self, features: Tensor) -> Tensor:
        """Compute spikes ``[T, B, C', N]``; batch norm is over T, B and N together."""
        T, B, _, N = features.shape
        current = self.conv(features.flatten(0, 1)).view(T, B, -1, N)
        spikes: Tensor = self.lif(current, None, self.norm)
        return spikes


class SpikingMLP(nn.Module):
    """Two ``SpikingConv1x1``: C to ratio * C, and back to C (arXiv 2502.12488, section 3.2).

    Saved for backward: ``2 C + 2 ratio C`` values for each step, clip and token, with the input.
    """

    def __init__(self, *, channels: int, ratio: int, neuron: NeuronFactory) -> None:
        super().__init__()
        hidden = channels * ratio
        # A bias before a batch norm changes nothing. The layers have biases because the published
        # weights have biases, and these weights must load.
        self.expand = SpikingConv1x1(inputs=channels, outputs=hidden, bias=True, lif=neuron())
        self.contract = SpikingConv1x1(inputs=hidden, outputs=channels, bias=True, lif=neuron())

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[T, B, C, N]`` to spikes ``[T, B, C, N]``."""
        spikes: Tensor = self.contract(self.expand(features))
        return spikes
