"""Shares with 95 % intervals, from a bootstrap over clips or over groups of clips."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avsnn.pydantic_base import StrictModel

# With so many samples, the ends of an interval move by a few hundredths of the interval's width
# from seed to seed.
SAMPLES = 4_000
SEED = 0
LEVEL = 0.95


class Share(StrictModel):
    """A share of clips with its 95 % interval.

    Attributes:
        value: the share, from 0 to 1.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float


class Resampling:
    """Draws clips again, or whole groups of clips, for the intervals of one part.

    The clips of one speaker resemble each other, so an interval over clips would be too narrow if
    the part holds several clips of each speaker. Where the clips have groups, whole groups are
    drawn.

    Args:
        groups: the group of each clip ``[N]``. If all clips are in one group, or every clip in a
            group of its own, clips are drawn.

    Attributes:
        unit: ``clips`` or ``groups``.
        units: number of clips or groups that are drawn from.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        self._clips = len(groups)
        self._group = np.unique(np.asarray(groups), return_inverse=True)[1]
        count = int(self._group.max()) + 1
        self.unit: Literal["clips", "groups"] = "groups" if 1 < count < self._clips else "clips"
        self.units = count if self.unit == "groups" else self._clips

    def share(self, hits: NDArray[np.bool_]) -> Share:
        """Return the share of clips that are hits, with its interval.

        The interval is that of the percentile bootstrap (Efron 1979). If all clips are hits, or
        none is a hit, every sample is the same; then the end that could differ is that of the exact
        binomial interval (Clopper and Pearson 1934).

        Args:
            hits: whether each clip is a hit, ``[N]``.
        """
        value = float(np.mean(hits))
        beyond = ((1 - LEVEL) / 2) ** (1 / self.units)
        if hits.all():
            return Share(value=value, low=beyond, high=1)
        if not hits.any():
            return Share(value=value, low=0, high=1 - beyond)
        low, high = np.quantile(self._shares(hits), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Share(value=value, low=float(low), high=float(high))

    def _shares(self, hits: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the share of hits in every sample, ``[SAMPLES]``."""
        if self.unit == "clips":
            # The number of hits among N drawn clips is binomial, so no clip needs to be drawn.
            generator = np.random.default_rng(SEED)
            return generator.binomial(self._clips, np.mean(hits), size=SAMPLES) / self._clips
        sizes = np.bincount(self._group)
        counts = np.bincount(self._group, weights=hits)
        return np.asarray((self._times @ counts) / (self._times @ sizes))

    @cached_property
    def _times(self) -> NDArray[np.float32]:
        """How often each group is drawn in each sample, ``[SAMPLES, groups]``."""
        generator = np.random.default_rng(SEED)
        evenly = np.full(self.units, 1 / self.units)
        return generator.multinomial(self.units, evenly, size=SAMPLES).astype(np.float32)
