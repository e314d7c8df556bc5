"""Which clips stand for the whole part in figures of single clips."""

from typing import NamedTuple

import numpy as np
import torch

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
    answers = clean.logits.numpy().argmax(1).tolist()
    rows, labels = opened.rows.tolist(), clean.labels.tolist()
    return [
        Clip(row, key, names[label], names[answer])
        for row, key, label, answer in zip(rows, opened.keys, labels, answers, strict=True)
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
    confidence = torch.softmax(clean.logits.double(), dim=1).amax(1).numpy()
    by_confidence = np.argsort(-confidence, kind="stable")
    answers, labels = clean.logits.numpy().argmax(1), clean.labels.numpy()
    right: dict[int, int] = {}
    wrong: list[int] = []
    for place in by_confidence.tolist():
        if answers[place] == labels[place]:
            right.setdefault(int(labels[place]), place)
        else:
            wrong.append(place)
    of_wrong = min(len(wrong), max(most // 2, most - len(right)))
    return [*list(right.values())[: most - of_wrong], *wrong[:of_wrong]]
