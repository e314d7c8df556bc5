"""Count the spikes of every layer of neurons while a network runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import torch

from avsnn.models.neuron import LIF

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


class SpikeRate(float):
    """Firing rate of one layer, in spikes per neuron and time step.

    Attributes:
        spikes: number of spikes, the numerator of the rate.
        size: neurons times time steps times clips, the denominator of the rate.
    """

    spikes: int
    size: int

    def __new__(cls, spikes: int, size: int) -> SpikeRate:
        """Divide ``spikes`` by ``size``, and keep both numbers."""
        rate = super().__new__(cls, spikes / size)
        rate.spikes, rate.size = spikes, size
        return rate


class SpikeCounter:
    """Counts the spikes of every ``LIF`` layer of ``model``, while the counter is open.

    The kernels count as they compute, so counting costs one sum of two numbers for each layer and
    call. All numbers stay on the device, because reading a number makes the CPU wait for a GPU. The
    counter is a context manager.

    Args:
        model: the network.
        inside: only layers whose names begin with one of these prefixes are counted.

    Attributes:
        names: names of the counted layers.
        counts: ``[layers, 2]`` int64: the number of spikes of each layer so far, and the number of
            neurons times time steps times clips. The tensor is always the same one, so a CUDA graph
            can add to it.
    """

    def __init__(self, model: nn.Module, inside: tuple[str, ...] = ("",)) -> None:
        layers = {n: m for n, m in model.named_modules() if isinstance(m, LIF)}
        self._layers = {n: m for n, m in layers.items() if n.startswith(inside)}
        self.names = list(self._layers)
        weight = next(model.parameters(), torch.empty(0))
        self.counts = torch.zeros((len(self.names), 2), dtype=torch.int64, device=weight.device)

    def __enter__(self) -> Self:
        """Start to count, or go on.

        Raises:
            RuntimeError: another counter is open, and would miss what this counter counts.
        """
        if any(layer.tally is not None for layer in self._layers.values()):
            raise RuntimeError("The spikes of this network are being counted already.")
        for layer, tally in zip(self._layers.values(), self.counts, strict=True):
            layer.tally = tally
        return self

    def __exit__(self, *_: object) -> None:
        """Stop counting; the counts stay."""
        for layer in self._layers.values():
            layer.tally = None

    def rates(self, counts: Tensor | None = None) -> dict[str, SpikeRate]:
        """Return the firing rate of every layer that was called, by module name.

        Args:
            counts: counts of the same layers, for example those of several processes together;
                None for the counts of this counter.
        """
        pairs = (self.counts if counts is None else counts).tolist()
        return {n: SpikeRate(*p) for n, p in zip(self.names, pairs, strict=True) if p[1]}


@contextmanager
def spike_rates(
    model: nn.Module, inside: tuple[str, ...] = ("",)
) -> Iterator[dict[str, SpikeRate]]:
    """Measure how often every ``LIF`` layer of ``model`` fires while the context is open.

    The dictionary is empty inside the context, and is filled when the context closes: module name
    to the firing rate over all forward passes inside the context. A layer that was never called is
    absent.

    Args:
        model: the network.
        inside: only layers whose names begin with one of these prefixes are counted.

    Raises:
        RuntimeError: the spikes of this network are being counted already.
    """
    rates: dict[str, SpikeRate] = {}
    counter = SpikeCounter(model, inside)
    with counter:
        try:
            yield rates
        finally:
            rates.update(counter.rates())
