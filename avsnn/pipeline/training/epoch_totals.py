"""The totals of an epoch: sums of the loss and its parts over the steps, and counts of spikes.

The sums stay on the device, because reading a number makes the device wait. A resume point keeps
the sums, so that an epoch which was cut in the middle ends with the same figures.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from avsnn.models.spike_counter import SpikeCounter, SpikeRate
from avsnn.pipeline.training.distributed import ProcessGroup

SUMS = "sum"
# Counts of the spikes of some layers over the epoch, and of all layers over the last step.
SPIKES, SIZES = "spikes", "sizes"
LAST_SPIKES, LAST_SIZES = "last_spikes", "last_sizes"


class EpochTotals:
    """Sums over the steps of one epoch.

    Args:
        model: the network whose spikes are counted.
        counted_layers: prefixes of the names of the layers whose spikes are counted in every step.
        device: the device that holds the sums.
        group: the processes whose sums make the whole.
    """

    def __init__(
        self,
        model: nn.Module,
        counted_layers: tuple[str, ...],
        *,
        device: torch.device,
        group: ProcessGroup,
    ) -> None:
        self.steps = 0
        self._sums: dict[str, Tensor] = {}
        self._device = device
        self._group = group
        self._model = model
        self._spikes = SpikeCounter(model, counted_layers)
        self._last_spikes = SpikeCounter(model, ())

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of one more step of this process."""
        self.steps += 1
        for name, value in values.items():
            addend = value.detach().double()
            self._sums[name] = self._sums[name] + addend if name in self._sums else addend

    def count_every_layer(self) -> None:
        """Count the spikes of every layer from now on.

        Counting the spikes of every layer takes time, so the training counts all layers in the last
        step of an epoch only.
        """
        self._last_spikes = SpikeCounter(self._model, ("",))

    def close(self) -> None:
        """Stop counting spikes."""
        self._spikes.close()
        self._last_spikes.close()

    def means(self, *, all_processes: bool) -> dict[str, float]:
        """Return the mean of every value over the steps so far.

        Args:
            all_processes: over the steps of all processes, not of this process alone.
        """
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values()))
        steps = self.steps
        if all_processes:
            sums, steps = self._group.sum(sums), steps * self._group.world_size
        return dict(zip(self._sums, (sums / steps).tolist(), strict=True))

    def spike_rates(self, *, all_processes: bool) -> dict[str, SpikeRate]:
        """Return the spikes per neuron and time step so far, by layer.

        A layer that is counted in every step has the rate of the epoch, any other layer has the
        rate of the last step.

        Args:
            all_processes: over the clips of all processes, not of this process alone.
        """
        rates: dict[str, SpikeRate] = {}
        for counter in (self._last_spikes, self._spikes):
            if not counter.counts:
                continue
            names = list(counter.counts)
            counts = torch.stack([counter.counts[name] for name in names])
            sizes = torch.tensor([counter.sizes[name] for name in names], device=self._device)
            if all_processes:
                counts, sizes = self._group.sum(counts), self._group.sum(sizes)
            pairs = zip(counts.tolist(), sizes.tolist(), strict=True)
            rates |= {name: SpikeRate(*pair) for name, pair in zip(names, pairs, strict=True)}
        return rates

    def state(self) -> dict[str, Tensor]:
        """Return what a resume point keeps: the sums over all processes, as of a single one."""
        world_size = self._group.world_size
        state = {
            f"{SUMS}.{name}": self._group.sum(total) / world_size
            for name, total in self._sums.items()
        }
        for counter, spikes, sizes in (
            (self._spikes, SPIKES, SIZES),
            (self._last_spikes, LAST_SPIKES, LAST_SIZES),
        ):
            for name, fired in counter.counts.items():
                size = torch.tensor(counter.sizes[name], device=self._device)
                state[f"{spikes}.{name}"] = self._group.sum(fired)
                state[f"{sizes}.{name}"] = self._group.sum(size)
        return state

    def restore(self, state: Mapping[str, Tensor], *, steps: int) -> None:
        """Go on from the sums that a resume point kept after ``steps`` steps.

        The main process takes the whole sums over and every other process starts from zero, so
        that the sums are right for any number of processes before and now.
        """
        self.steps = steps
        for key, value in state.items():
            kind, _, name = key.partition(".")
            own = value.to(self._device) * int(self._group.is_main)
            if kind == SUMS:
                self._sums[name] = own * self._group.world_size
            elif kind in (SPIKES, SIZES, LAST_SPIKES, LAST_SIZES):
                counter = self._spikes if kind in (SPIKES, SIZES) else self._last_spikes
                if kind in (SPIKES, LAST_SPIKES):
                    counter.counts[name] = own
                else:
                    counter.sizes[name] = int(own)
