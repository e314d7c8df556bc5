"""Whether a network is right as often as its confidence says."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from avsnn.pydantic_base import StrictModel

BINS = 15


class CalibrationBin(StrictModel):
    """The clips whose confidence lies in one range.

    Attributes:
        low: lower end of the range; the end itself is in the range below.
        high: upper end of the range.
        clips: number of clips.
        confidence: mean confidence of the clips; 0 without clips.
        accuracy: share of clips with the right answer; 0 without clips.
    """

    low: float
    high: float
    clips: int
    confidence: float
    accuracy: float


class Calibration(StrictModel):
    """The calibration of a network.

    Attributes:
        ece: expected calibration error: the mean difference of confidence and accuracy over clips,
            taken bin by bin (Guo et al. 2017, equation 3), from 0 to 1.
        bins: ranges of equal width, from 0 to 1.
    """

    ece: float
    bins: list[CalibrationBin] = Field(min_length=1)


def calibrate(confidence: NDArray[np.float64], is_right: NDArray[np.bool_]) -> Calibration:
    """Compute the calibration from the confidence of each answer.

    Args:
        confidence: probability of the answer, ``[N]``.
        is_right: whether the answer is right, ``[N]``.
    """
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    bins = []
    for number in range(BINS):
        inside = place == number
        clips = int(inside.sum())
        bins.append(
            CalibrationBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                clips=clips,
                confidence=float(confidence[inside].mean()) if clips else 0,
                accuracy=float(is_right[inside].mean()) if clips else 0,
            )
        )
    gaps = [one.clips * abs(one.confidence - one.accuracy) for one in bins]
    return Calibration(ece=sum(gaps) / len(confidence), bins=bins)
