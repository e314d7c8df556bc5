"""Clips whose sound comes from a clip of another class, and whom a network follows then."""

import numpy as np
from numpy.typing import NDArray

from avsnn.pipeline.evaluation.intervals import Resampling
from avsnn.pipeline.evaluation.robustness.record import SwappedModality

SEED = 0


def swapped_sounds(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of the clip whose sound each clip gets, a clip of another class, ``[N]``.

    Each sound is used once, so the classes of the sounds are as frequent as the classes of the
    pictures. Only if one class has more than half of the clips, its last clips get sounds that are
    used before.

    Args:
        labels: class of each clip, ``[N]``; at least two classes.
    """
    generator = np.random.default_rng(SEED)
    sounds = generator.permutation(len(labels))
    for clip in np.flatnonzero(labels[sounds] == labels):
        if labels[sounds[clip]] != labels[clip]:
            # The clip has exchanged its sound with an earlier clip.
            continue
        others = np.flatnonzero((labels != labels[clip]) & (labels[sounds] != labels[clip]))
        if len(others):
            other = generator.choice(others)
            sounds[[clip, other]] = sounds[[other, clip]]
        else:
            sounds[clip] = generator.choice(np.flatnonzero(labels != labels[clip]))
    return sounds


def measure_swapped(
    answers: NDArray[np.int64],
    *,
    heard: NDArray[np.int64],
    seen: NDArray[np.int64],
    resampling: Resampling,
) -> SwappedModality:
    """Return whom a network follows when sound and picture are of different classes.

    Args:
        answers: class that the network names for each clip, ``[N]``.
        heard: class of the sound of each clip, ``[N]``.
        seen: class of the picture of each clip, ``[N]``.
        resampling: gives the intervals.
    """
    return SwappedModality(
        clips=len(answers),
        follows_audio=resampling.share(answers == heard),
        follows_visual=resampling.share(answers == seen),
        follows_neither=resampling.share((answers != heard) & (answers != seen)),
    )
