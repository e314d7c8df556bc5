"""The totals of an epoch: sums of the loss and its parts over the steps, and counts of spikes.

The sums stay on the device, because reading a number makes the device wait. A resume point keeps
the sums, so that an epoch which was cut in the middle ends with the same figures.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from avsnn.models.spike_counter import SpikeCounter, SpikeRate
from avsnn.pipeline.training.distributed import ProcessGroup

SUMS, SPIKES, SIZES = "sum", "spikes", "sizes"


class EpochTotals:
    """Sums over the steps of one epoch.

    Args:
        model: the network whose spikes are counted.
        counted_layers: prefixes of the names of the layers whose spikes are counted.
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
        self._spikes = SpikeCounter(model, counted_layers) if counted_layers else None

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of one more step of this process."""
        self.steps += 1
        for name, value in values.items():
            addend = value.detach().double()
            self._sums[name] = self._sums[name] + addend if name in self._sums else addend

    def close(self) -> None:
        """Stop counting spikes."""
        if self._spikes is not None:
            self._spikes.close()

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

        Args:
            all_processes: over the clips of all processes, not of this process alone.
        """
        if self._spikes is None or not self._spikes.counts:
            return {}
        names = list(self._spikes.counts)
        counts = torch.stack([self._spikes.counts[name] for name in names])
        sizes = torch.tensor([self._spikes.sizes[name] for name in names], device=self._device)
        if all_processes:
            counts, sizes = self._group.sum(counts), self._group.sum(sizes)
        pairs = zip(counts.tolist(), sizes.tolist(), strict=True)
        return {name: SpikeRate(*pair) for name, pair in zip(names, pairs, strict=True)}

    def state(self) -> dict[str, Tensor]:
        """Return what a resume point keeps: the sums over all processes, as of a single one."""
        world_size = self._group.world_size
        state = {
            f"{SUMS}.{name}": self._group.sum(total) / world_size
            for name, total in self._sums.items()
        }
        if self._spikes is not None:
            for name, fired in self._spikes.counts.items():
                size = torch.tensor(self._spikes.sizes[name], device=self._device)
                state[f"{SPIKES}.{name}"] = self._group.sum(fired)
                state[f"{SIZES}.{name}"] = self._group.sum(size)
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
            elif self._spikes is not None and kind == SPIKES:
                self._spikes.counts[name] = own
            elif self._spikes is not None:
                self._spikes.sizes[name] = int(own)
