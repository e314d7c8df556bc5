"""The answer for one clip, as people and programs read the answer."""

from pydantic import BaseModel

from avsnn.datasets_manifest.clips import Modality


class Choice(BaseModel):
    """A class that the network considers.

    Attributes:
        name: name of the class.
        confidence: softmax of the logits, from 0 to 1.
    """

    name: str
    confidence: float


class Prediction(BaseModel):
    """The answer of a network for one clip.

    Attributes:
        clip: path of the file; of the visual file where the sound has a file of its own.
        sound: path of the sound file; None where the clip is one file.
        answer: name of the class of the highest logit; None where the clip has no answer.
        confidence: confidence of the answer; None where the clip has no answer.
        top: the three classes of the highest logits, the best first; fewer where there are fewer
            classes, none where the clip has no answer.
        missing: the modalities that the clip lacks; the network got zeros in their place.
        reason: why the clip has no answer, or why a modality is missing; otherwise empty.
    """

    clip: str
    sound: str | None
    answer: str | None = None
    confidence: float | None = None
    top: list[Choice] = []
    missing: list[Modality] = []
    reason: str = ""
