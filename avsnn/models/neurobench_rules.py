"""Measure a network by the rules of NeuroBench 2.3 (neurobench.ai), under the keys of NeuroBench.

These rules differ from the rule of ``energy.py``:

* Only layers of the classes ``Linear`` and ``Conv`` count. Products of attention do not count.
* A zero of an input and a zero of a weight cost nothing, also where the input is real-valued.
* Padding is no input, so padding does not count as dense either.
* An input is spikes if the input holds only -1, 0 and 1. Then its operations are ACs; the
  operations of any other input are MACs.

NeuroBench decides for each batch whether an input is spikes. Here, the inputs of all batches
decide together, so the size of a batch changes nothing. For one batch, the figures are those of
NeuroBench.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor, nn

from avsnn.models.layers import ChannelLinear

if TYPE_CHECKING:
    from types import TracebackType

    from torch.utils.hooks import RemovableHandle

#: Layers of weights that NeuroBench counts, of those that our networks have.
CONNECTIONS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def footprint(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers (``Footprint``)."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def connection_sparsity(model: nn.Module) -> float:
    """Return the share of zero weights (``ConnectionSparsity``), rounded to 4 digits.

    NeuroBench rounds in the same way.
    """
    weights = [layer.weight for layer in model.modules() if isinstance(layer, CONNECTIONS)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return round(zeros / sum(weight.numel() for weight in weights), 4)


class SynapticOperations(NamedTuple):
    """The operations for one clip, all time steps together (``SynapticOperations``).

    Attributes:
        dense: operations if neither an input nor a weight were zero.
        effective_macs: operations of non-zero inputs and non-zero weights, where inputs are no
            spikes.
        effective_acs: operations of non-zero inputs and non-zero weights, where inputs are spikes.
    """

    dense: float
    effective_macs: float
    effective_acs: float


class _Count:
    """The operations of one layer so far."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.dense = self.effective = 0.0
        self.of_spikes = True


class SynapticCounter:
    """Counts the synaptic operations of a network while the counter is open.

    The counter is a context manager. The counter changes no result of the network, and works with
    all kernels.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._counts = [_Count(m) for m in model.modules() if isinstance(m, CONNECTIONS)]
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        """Start to count, or go on."""
        for count in self._counts:

            def add(_: nn.Module, inputs: tuple[Tensor, ...], count: _Count = count) -> None:
                _add(count, inputs[0])

            self._handles.append(count.layer.register_forward_pre_hook(add))
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop counting; the counts stay."""
        while self._handles:
            self._handles.pop().remove()

    def operations(self, clips: int) -> SynapticOperations:
        """Return the operations for one clip.

        Args:
            clips: number of clips that went through the network.
        """
        return SynapticOperations(
            dense=sum(count.dense for count in self._counts) / clips,
            effective_macs=sum(c.effective for c in self._counts if not c.of_spikes) / clips,
            effective_acs=sum(c.effective for c in self._counts if c.of_spikes) / clips,
        )


@torch.no_grad()
def _add(count: _Count, values: Tensor) -> None:
    """Add the operations of one call of a layer."""
    layer = count.layer
    assert isinstance(layer, CONNECTIONS)  # noqa: S101 - the constructor took only these
    # One sample at one place in time: the channels come first for a convolution, alone for a layer
    # on the last axis. Inputs of the same place are added first, because the count is linear.
    if isinstance(layer, ChannelLinear):
        values = values.mT
    axes = layer.weight.dim() - 1 if isinstance(layer, nn.Conv1d | nn.Conv2d) else 1
    samples = values.flatten(0, -axes - 1) if values.dim() > axes else values[None]
    used = (samples != 0).sum(0).double()
    count.dense += _reached(layer, torch.full_like(used, len(samples)), all_weights=True)
    count.effective += _reached(layer, used, all_weights=False)
    if count.of_spikes:
        count.of_spikes = bool(((values == 0) | (values.abs() == 1)).all())


def _reached(layer: nn.Linear | nn.Conv1d | nn.Conv2d, used: Tensor, *, all_weights: bool) -> float:
    """Return the number of weights that inputs meet.

    Args:
        layer: the layer.
        used: how many inputs there are at each place, ``[C]``, ``[C, N]`` or ``[C, H, W]``, in
            float64, which holds whole numbers up to 2 ** 53 exactly.
        all_weights: count the weights that are zero, too.
    """
    weight = layer.weight
    ones = torch.ones_like(weight, dtype=torch.float64) if all_weights else (weight != 0).double()
    if isinstance(layer, nn.Linear):
        return float((used * ones.sum(0)).sum())
    # One output channel for each group holds the weights of all output channels of the group.
    summed = ones.view(layer.groups, -1, *ones.shape[1:]).sum(1)
    convolve = nn.functional.conv1d if isinstance(layer, nn.Conv1d) else nn.functional.conv2d
    reached: Tensor = convolve(
        used[None], summed, None, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    return float(reached.sum())
