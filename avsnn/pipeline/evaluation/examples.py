"""Clips to look at: the worst mistakes and some right answers."""

from pydantic import BaseModel

from avsnn.pipeline.inference.open_part import OpenPart
from avsnn.pipeline.inference.predict import Scores


class Example(BaseModel):
    """One clip as the network sees the clip.

    Attributes:
        key: key of the clip.
        truth: class of the clip.
        answer: class that the network names.
        confidence: probability that the network gives to its answer, from 0 to 1.
        frame: the frame as PNG in base64.
        spectrogram: the audio image as PNG in base64.
    """

    key: str
    truth: str
    answer: str
    confidence: float
    frame: str
    spectrogram: str


class Examples(BaseModel):
    """The content of ``report/PART-examples.json``.

    Attributes:
        fingerprint: changes with the checkpoint, the data, the part and the version of the code.
        mistakes: wrong answers, the most confident first.
        right: right answers, one for each of some classes.
    """

    fingerprint: str
    mistakes: list[Example]
    right: list[Example]


def choose_examples(opened: OpenPart, clean: Scores, *, fingerprint: str) -> Examples:
    """Choose clips to look at."""
    return Examples(fingerprint=fingerprint, mistakes=[], right=[])
