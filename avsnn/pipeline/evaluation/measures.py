"""The measures of a network on one part of a split: the content of ``report/<part>.json``."""

import os
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError, model_validator

from avsnn.datasets_manifest.clips import Part
from avsnn.pipeline.inference.predict import Scores
from avsnn.pipeline.runs.config import RunConfig


class ClassReport(BaseModel):
    """The measures of one class.

    Attributes:
        name: name of the class.
        precision: share of correct clips among the clips that the network assigns to the class.
        recall: share of correctly assigned clips among the clips of the class.
        f1: harmonic mean of precision and recall.
        clips: number of clips of the class.
    """

    name: str
    precision: float
    recall: float
    f1: float
    clips: int


class Evaluation(BaseModel):
    """The content of ``report/<part>.json``.

    Attributes:
        fingerprint: changes with the checkpoint, the data and the part.
        run: name of the run folder.
        dataset: name of the data set.
        method: name of the fusion method.
        split: name of the split.
        part: the part that was measured.
        epoch: epoch of the checkpoint.
        selection: the part that chose the epoch, or ``last``.
        clips: number of clips.
        loss: mean cross-entropy.
        top1: top-1 accuracy as a share of clips.
        top5: top-5 accuracy; None for five classes or fewer.
        classes: the measures of every class.
        confusion: number of clips by true class (row) and predicted class (column).
    """

    fingerprint: str
    run: str
    dataset: str
    method: str
    split: str
    part: Part
    epoch: int
    selection: str
    clips: int
    loss: float
    top1: float
    top5: float | None
    classes: list[ClassReport]
    confusion: list[list[int]]

    @model_validator(mode="after")
    def _require_square_matrix(self) -> Self:
        count = len(self.classes)
        if [len(row) for row in self.confusion] != [count] * count:
            raise ValueError("the confusion matrix has no row and no column for every class")
        return self


def read_evaluation(path: Path) -> Evaluation | None:
    """Return a recorded evaluation; None if the file is missing, damaged or of another version."""
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except (ValidationError, OSError):
        return None


def measure(
    config: RunConfig, scores: Scores, *, part: Part, epoch: int, fingerprint: str, run: Path
) -> Evaluation:
    """Compute the measures of a network from its scores.

    Args:
        config: the configuration of the run.
        scores: logits and labels of the part's clips.
        part: the part that was measured.
        epoch: epoch of the checkpoint.
        fingerprint: the fingerprint of this evaluation.
        run: the run folder.
    """
    # scikit-learn takes a second to import, and a recorded evaluation does not need it.
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    names = config.manifest.classes
    labels = list(range(len(names)))
    # Of equal logits, numpy takes the first, like `Scores.top`.
    truth, predicted = scores.labels.numpy(), scores.logits.numpy().argmax(1)
    columns: tuple[Any, ...] = precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=0
    )
    return Evaluation(
        fingerprint=fingerprint,
        # A name that is no UTF-8 cannot stand in JSON.
        run=os.fsencode(run.name).decode(errors="backslashreplace"),
        dataset=config.dataset,
        method=config.settings.model.method,
        split=config.split,
        part=part,
        epoch=epoch,
        selection=config.settings.selection,
        clips=len(truth),
        loss=scores.loss,
        top1=scores.accuracy,
        top5=scores.top(5) if len(names) > 5 else None,
        classes=[
            ClassReport(name=name, precision=p, recall=r, f1=f, clips=n)
            for name, p, r, f, n in zip(names, *columns, strict=True)
        ],
        confusion=confusion_matrix(truth, predicted, labels=labels).tolist(),
    )
