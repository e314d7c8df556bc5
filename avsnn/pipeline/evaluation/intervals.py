"""Shares with 95 % intervals, from a bootstrap over clips or over groups of clips."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

# Each interval comes from so many drawn samples. With 10,000 samples, the ends of an interval move
# by a few thousandths of its width from seed to seed.
SAMPLES = 10_000
SEED = 0
LEVEL = 0.95


class Share(BaseModel):
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

    Clips of one speaker resemble each other, so an interval over clips would be too narrow if the
    part holds several clips of each speaker. Where the groups are known, whole groups are drawn.

    Args:
        groups: the group of each clip ``[N]``; None draws clips.

    Attributes:
        unit: ``clips`` or ``groups``.
        units: number of clips or groups that are drawn from.
    """

    def __init__(self, groups: Sequence[str] | None, clips: int) -> None:
        self.unit = "clips" if groups is None else "groups"
        self._member = np.arange(clips) if groups is None else _numbered(groups)
        self.units = int(self._member.max()) + 1
        generator = np.random.default_rng(SEED)
        # How often each unit is drawn in each sample, ``[SAMPLES, units]``.
        self._times = generator.multinomial(
            self.units, np.full(self.units, 1 / self.units), size=SAMPLES
        )

    def share(self, hits: NDArray[np.bool_]) -> Share:
        """Return the share of clips that are hits, with its interval (percentile bootstrap).

        Args:
            hits: whether each clip is a hit, ``[N]``.
        """
        sizes = np.bincount(self._member, minlength=self.units)
        counts = np.bincount(self._member, weights=hits, minlength=self.units)
        shares = (self._times @ counts) / (self._times @ sizes)
        low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Share(value=float(np.mean(hits)), low=float(low), high=float(high))


def _numbered(groups: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each clip's group, from 0."""
    return np.unique(np.asarray(groups), return_inverse=True)[1]
