"""The answer of a network to every clip of a part: the content of ``report/PART-clips.csv``."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from avsnn.pipeline.inference.predict import Scores


class Answer(NamedTuple):
    """The answer of a network to one clip.

    Attributes:
        key: key of the clip.
        group: the speaker, actor or recording that the clip comes from.
        truth: class of the clip.
        answer: class that the network names.
        confidence: probability that the network gives to its answer, from 0 to 1.
        truth_confidence: probability that the network gives to the class of the clip.
    """

    key: str
    group: str
    truth: str
    answer: str
    confidence: float
    truth_confidence: float

    @property
    def is_right(self) -> bool:
        """Whether the network names the class of the clip."""
        return self.answer == self.truth


def make_answers(
    scores: Scores, keys: Sequence[str], groups: Sequence[str], classes: Sequence[str]
) -> list[Answer]:
    """Return the answer to each clip.

    Args:
        scores: logits and labels of the clips.
        keys: key of each clip.
        groups: group of each clip.
        classes: name of each class.
    """
    shares = scores.probabilities
    rows = zip(keys, groups, scores.labels.tolist(), scores.answers.tolist(), shares, strict=True)
    return [
        Answer(key, group, classes[truth], classes[answer], float(p[answer]), float(p[truth]))
        for key, group, truth, answer, p in rows
    ]


def answers_to_csv(answers: Sequence[Answer]) -> bytes:
    """Return the content of ``report/PART-clips.csv``: one row for each clip, in the same order."""
    text = io.StringIO()
    # A name that holds a carriage return comes back as it was only from within quotes.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(Answer._fields)
    writer.writerows(answers)
    return text.getvalue().encode()


def answers_from_csv(content: bytes) -> list[Answer]:
    """Return the answers that a file holds.

    Raises:
        ValueError: the content is not what `answers_to_csv` returns.
    """
    header, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
    if tuple(header) != Answer._fields:
        raise ValueError("the columns are not those of answers")
    return [
        Answer(key, group, truth, answer, float(confidence), float(truth_confidence))
        for key, group, truth, answer, confidence, truth_confidence in rows
    ]
