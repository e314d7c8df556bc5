"""The spikes of some neurons over time, for raster plots."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch

from avsnn.models.neuron import LIF
from avsnn.models.watching import watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


class NeuronSpikes(NamedTuple):
    """The spikes of some neurons of one layer for one clip.

    Attributes:
        layer: name of the layer.
        spikes: ``[T, neurons]``, 0 or 1, on the CPU.
    """

    layer: str
    spikes: Tensor


@contextmanager
def neuron_spikes(model: nn.Module, *, neurons: int) -> Iterator[list[NeuronSpikes]]:
    """Record spikes of every ``LIF`` layer of ``model`` while the context is open.

    The context yields a list that grows by one entry for each call of a layer, in the order in
    which layers run. Recorded are the spikes of the first clip of the batch, before pooling. A hook
    watches each layer, so pooling and attention run apart from their neurons; the spikes are the
    same.

    Args:
        model: the network.
        neurons: largest number of neurons of a layer; of a layer that has more, neurons are taken
            that are spread evenly over the layer.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LIF)}
    recorded: list[NeuronSpikes] = []

    def record(name: str, _inputs: object, spikes: Tensor) -> None:
        # On a GPU, a tensor of one clip may have its channels innermost: `reshape` copies.
        flat = spikes[:, 0].reshape(len(spikes), -1)
        chosen = evenly_spread(flat.shape[1], neurons)
        recorded.append(NeuronSpikes(name, flat[:, chosen.to(flat.device)].float().cpu()))

    with watching(layers, record):
        yield recorded


def evenly_spread(count: int, most: int) -> Tensor:
    """Return at most ``most`` different numbers from 0 to ``count - 1``, evenly spread, sorted."""
    chosen = min(count, most)
    if chosen == 1:
        return torch.zeros(1, dtype=torch.int64)
    # Whole numbers: a float32 cannot tell the places of a large layer apart.
    return torch.arange(chosen) * (count - 1) // (chosen - 1)
