"""The totals of an epoch: sums of the loss and its parts over the steps, and counts of spikes.

The totals stay on the device, in the same tensors from epoch to epoch: reading a number makes a
GPU wait, and a CUDA graph adds to the tensors that it knows. A resume point keeps the totals, so
that an epoch which was cut in the middle ends with the same figures.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from avsnn.models.spike_counter import SpikeCounter, SpikeRate
from avsnn.pipeline.training.distributed import ProcessGroup

LOSSES = ("loss", "cross_entropy", "alignment", "auxiliary")
SUMMED = (*LOSSES, "accuracy")

# Accuracy of the share of each stream in the head, in a training with a strategy of balance.
STREAMS = ("audio_accuracy", "visual_accuracy")

# First words of the names of the totals in a resume point.
SUMS, SPIKES, SIZES = "sum", "spikes", "sizes"


class EpochTotals:
    """Sums over the steps of one epoch.

    Args:
        model: the network whose spikes are counted, on the device that holds the sums.
        group: the processes whose sums make the whole.
        has_streams: whether the steps give the accuracy of each stream too.

    Attributes:
        steps: number of steps of the epoch so far.
        spikes: counts the spikes of ``model`` while the caller keeps the counter open.
    """

    def __init__(self, model: nn.Module, *, group: ProcessGroup, has_streams: bool = False) -> None:
        self.steps = 0
        self._names = (*SUMMED, *STREAMS) if has_streams else SUMMED
        self.spikes = SpikeCounter(model)
        device = next(model.parameters()).device
        self._sums = torch.zeros(len(self._names), dtype=torch.float64, device=device)
        self._group = group

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of one step of this process, by name."""
        self._sums.add_(torch.stack([values[name].detach() for name in self._names]))

    def means(self, *, all_processes: bool) -> dict[str, float]:
        """Return the mean of every value over the steps so far.

        Args:
            all_processes: over the steps of all processes, not of this process alone.
        """
        sums, steps = self._sums, self.steps
        if all_processes:
            sums, steps = self._group.sum(sums), steps * self._group.world_size
        return dict(zip(self._names, (sums / steps).tolist(), strict=True))

    def spike_rates(self, *, all_processes: bool) -> dict[str, SpikeRate]:
        """Return the spikes per neuron and time step so far, by layer.

        Args:
            all_processes: over the clips of all processes, not of this process alone.
        """
        counts = self.spikes.counts
        return self.spikes.rates(self._group.sum(counts) if all_processes else counts)

    def state(self) -> dict[str, Tensor]:
        """Return what a resume point keeps: the sums over all processes, as of a single one."""
        sums = self._group.sum(self._sums) / self._group.world_size
        state = {f"{SUMS}.{name}": total for name, total in zip(self._names, sums, strict=True)}
        for name, (spikes, size) in zip(
            self.spikes.names, self._group.sum(self.spikes.counts), strict=True
        ):
            state |= {f"{SPIKES}.{name}": spikes, f"{SIZES}.{name}": size}
        # Tensors that share memory cannot be written to one file.
        return {name: total.clone() for name, total in state.items()}

    def restore(self, state: Mapping[str, Tensor], *, steps: int) -> None:
        """Start an epoch with the sums that a resume point kept after ``steps`` steps.

        The main process takes the whole sums over and every other process starts from zero, so
        that the sums are right for any number of processes before and now.

        Args:
            state: what ``state`` returned; empty at the start of an epoch.
            steps: number of steps that are done.
        """
        self.steps = steps
        self._sums.zero_()
        self.spikes.counts.zero_()
        if not self._group.is_main:
            return
        for place, name in enumerate(self._names):
            if (total := state.get(f"{SUMS}.{name}")) is not None:
                self._sums[place] = total * self._group.world_size
        for place, name in enumerate(self.spikes.names):
            for column, kind in enumerate((SPIKES, SIZES)):
                if (count := state.get(f"{kind}.{name}")) is not None:
                    self.spikes.counts[place, column] = count
