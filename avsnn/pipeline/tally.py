"""What the steps of an epoch add up to: sums of the loss and its parts, and spikes.

The sums stay on the device, since asking for a number makes it wait, and go into a checkpoint, so
that an epoch which was cut in the middle ends with the same figures.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from avsnn.models.monitor import SpikeCounter, SpikeRate
from avsnn.pipeline.ranks import Ranks

SUMS, SPIKES, SIZES = "sum", "spikes", "sizes"


class Tally:
    """Sums over the steps of one epoch.

    Args:
        model: whose spikes are counted.
        inside: names of layers that are counted at every step begin with one of these.
        device: where the sums are.
        ranks: the processes whose sums make the whole.
    """

    def __init__(
        self, model: nn.Module, inside: tuple[str, ...], *, device: torch.device, ranks: Ranks
    ) -> None:
        self.steps = 0
        self._sums: dict[str, Tensor] = {}
        self._device = device
        self._ranks = ranks
        self._spikes = SpikeCounter(model, inside) if inside else None

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Counts one more step of this process."""
        self.steps += 1
        for name, value in values.items():
            now = value.detach().double()
            self._sums[name] = self._sums[name] + now if name in self._sums else now

    def close(self) -> None:
        """Stops counting spikes."""
        if self._spikes is not None:
            self._spikes.close()

    def means(self, *, everywhere: bool) -> dict[str, float]:
        """The mean of every value over the steps so far, of this process or of all."""
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values()))
        steps = self.steps
        if everywhere:
            sums, steps = self._ranks.total(sums), steps * self._ranks.count
        return dict(zip(self._sums, (sums / steps).tolist(), strict=True))

    def spike_rates(self, *, everywhere: bool) -> dict[str, SpikeRate]:
        """Spikes per neuron and step so far, by layer, of this process or of all."""
        if self._spikes is None or not self._spikes.counts:
            return {}
        names = list(self._spikes.counts)
        counts = torch.stack([self._spikes.counts[name] for name in names])
        sizes = torch.tensor([self._spikes.sizes[name] for name in names], device=self._device)
        if everywhere:
            counts, sizes = self._ranks.total(counts), self._ranks.total(sizes)
        pairs = zip(counts.tolist(), sizes.tolist(), strict=True)
        return {name: SpikeRate(*pair) for name, pair in zip(names, pairs, strict=True)}

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it: the sums over all processes, as if one had done it all."""
        count = self._ranks.count
        state = {f"{SUMS}.{name}": self._ranks.total(s) / count for name, s in self._sums.items()}
        if self._spikes is not None:
            for name, fired in self._spikes.counts.items():
                size = torch.tensor(self._spikes.sizes[name], device=self._device)
                state[f"{SPIKES}.{name}"] = self._ranks.total(fired)
                state[f"{SIZES}.{name}"] = self._ranks.total(size)
        return state

    def go_on(self, state: Mapping[str, Tensor], *, steps: int) -> None:
        """Counts on from what a checkpoint kept after so many steps.

        The first process takes all of it over and the others start from nothing, so that the sums
        are right, however many they were before.
        """
        self.steps = steps
        for key, value in state.items():
            kind, _, name = key.partition(".")
            mine = value.to(self._device) * int(self._ranks.leads)
            if kind == SUMS:
                self._sums[name] = mine * self._ranks.count
            elif self._spikes is not None and kind == SPIKES:
                self._spikes.counts[name] = mine
            elif self._spikes is not None:
                self._spikes.sizes[name] = int(mine)
