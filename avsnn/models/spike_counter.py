"""Count the spikes of every layer of neurons while a network runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from avsnn.models.activation_checkpointing import is_recomputing
from avsnn.models.neuron import LIF

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


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
    """Counts the spikes of every ``LIF`` layer of ``model`` until the counter is closed.

    The counter costs one count per layer and call. It also makes the pooling behind a layer run as
    a separate operation, because the spikes before pooling are what is counted.

    Args:
        model: the network.
        inside: only layers whose names begin with one of these prefixes are counted.

    Attributes:
        counts: number of spikes so far by module name, in the order in which the layers first ran.
            The numbers are scalar tensors on the device, because reading a number makes the CPU
            wait for the device. A layer that was never called is absent.
        sizes: neurons times time steps times clips so far, by module name.
    """

    def __init__(self, model: nn.Module, inside: tuple[str, ...] = ("",)) -> None:
        self.counts: dict[str, Tensor] = {}
        self.sizes: dict[str, int] = {}
        layers = [(n, m) for n, m in model.named_modules() if isinstance(m, LIF)]
        self._handles = [self._watch(n, m) for n, m in layers if n.startswith(inside)]

    def _watch(self, name: str, module: LIF) -> RemovableHandle:
        def count(_module: nn.Module, _inputs: Any, spikes: Tensor) -> None:
            if is_recomputing():
                return
            fired = spikes.detach().count_nonzero()
            self.counts[name] = self.counts[name] + fired if name in self.counts else fired
            self.sizes[name] = self.sizes.get(name, 0) + spikes.numel()

        return module.register_forward_hook(count)

    def close(self) -> None:
        """Stop counting, and remove every hook from the model."""
        for handle in self._handles:
            handle.remove()

    def rates(self) -> dict[str, SpikeRate]:
        """Return the firing rate of every layer so far, by module name."""
        return {name: SpikeRate(int(n), self.sizes[name]) for name, n in self.counts.items()}


@contextmanager
def spike_rates(
    model: nn.Module, inside: tuple[str, ...] = ("",)
) -> Iterator[dict[str, SpikeRate]]:
    """Measure how often every ``LIF`` layer of ``model`` fires while the context is open.

    The dictionary is empty inside the context, and is filled when the context closes: module name
    to the firing rate over all forward passes inside the context.

    Args:
        model: the network.
        inside: only layers whose names begin with one of these prefixes are counted.
    """
    rates: dict[str, SpikeRate] = {}
    counter = SpikeCounter(model, inside)
    try:
        yield rates
    finally:
        counter.close()
        rates.update(counter.rates())
