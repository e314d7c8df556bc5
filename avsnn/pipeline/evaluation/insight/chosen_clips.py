"""Which clips stand for the whole part in figures of single clips."""

from typing import NamedTuple

import numpy as np

from avsnn.pipeline.inference.open_part import OpenPart
from avsnn.pipeline.inference.predict import Scores


class Clip(NamedTuple):
    """A clip of the part, and what the network says.

    Attributes:
        row: row of the clip in the source of the samples.
        key: key of the clip.
        truth: class of the clip.
        answer: class that the network names.
    """

    row: int
    key: str
    truth: str
    answer: str


def described(opened: OpenPart, clean: Scores) -> list[Clip]:
    """Return every clip of the part, in the order of the rows."""
    names = opened.run.config.manifest.classes
    columns = (opened.rows.tolist(), opened.keys, clean.labels.tolist(), clean.answers.tolist())
    return [
        Clip(row, key, names[label], names[answer])
        for row, key, label, answer in zip(*columns, strict=True)
    ]


def choose_clips(clean: Scores, *, most: int) -> list[int]:
    """Return the places of some telling clips in the part: right answers first, then wrong ones.

    Right answers are of different classes. Of both kinds, the most confident answers are chosen,
    and half of the places are for wrong answers if there are so many. Of equally confident answers,
    the first in the part is chosen.

    Args:
        clean: the scores of the clips.
        most: largest number of clips.
    """
    by_confidence = np.argsort(-clean.probabilities.max(1), kind="stable")
    labels, is_right = clean.labels.tolist(), clean.is_right
    right: dict[int, int] = {}
    wrong: list[int] = []
    for place in by_confidence.tolist():
        if is_right[place]:
            right.setdefault(labels[place], place)
        else:
            wrong.append(place)
    of_wrong = min(len(wrong), max(most // 2, most - len(right)))
    return [*list(right.values())[: most - of_wrong], *wrong[:of_wrong]]
