"""The measures of a network on one part of a split: the content of ``report/<part>.json``."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from avsnn.datasets_manifest.clips import Part
from avsnn.pipeline.evaluation.calibration import Calibration, calibrate
from avsnn.pipeline.evaluation.intervals import Resampling, Share
from avsnn.pipeline.inference.predict import Scores
from avsnn.pipeline.runs.stored_run import StoredRun, run_name
from avsnn.pydantic_base import StrictModel


class ClassReport(StrictModel):
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


class Majority(StrictModel):
    """The class with the most clips in a part.

    Attributes:
        name: name of the class.
        share: top-1 accuracy of an answer that always names this class.
    """

    name: str
    share: float


class Evaluation(StrictModel):
    """The content of ``report/<part>.json``.

    Attributes:
        fingerprint: changes with the checkpoint, the data and the part.
        run: name of the run folder.
        dataset: name of the data set.
        method: name of the fusion method.
        seed: seed of the training.
        split: name of the split.
        part: the part that was measured.
        epoch: epoch of the checkpoint; 0 if the run was converted, and nobody knows the epoch.
        selection: the part that chose the epoch, or ``last``.
        clips: number of clips.
        loss: mean cross-entropy.
        top1: top-1 accuracy as a share of clips.
        top1_interval: top-1 accuracy with its 95 % interval.
        top5: top-5 accuracy; None for five classes or fewer.
        top5_interval: top-5 accuracy with its 95 % interval.
        resampled: whether the intervals come from drawing clips or whole groups of clips again.
        resampled_units: number of clips or groups.
        chance: expected accuracy of an answer that is drawn evenly from all classes.
        majority: the class with the most clips.
        calibration: whether the network is right as often as its confidence says.
        classes: the measures of every class.
        confusion: number of clips by true class (row) and predicted class (column).
        caveats: what a reader must know beside the figures, as sentences.
        clips_sha256: SHA-256 of ``report/<part>-clips.csv``.
    """

    fingerprint: str
    run: str
    dataset: str
    method: str
    seed: int
    split: str
    part: Part
    epoch: int
    selection: str
    clips: int
    loss: float
    top1: float
    top1_interval: Share
    top5: float | None
    top5_interval: Share | None
    resampled: Literal["clips", "groups"]
    resampled_units: int
    chance: float
    majority: Majority
    calibration: Calibration
    classes: list[ClassReport] = Field(min_length=1)
    confusion: list[list[int]]
    caveats: list[str]
    clips_sha256: str

    @property
    def guessing(self) -> float:
        """Accuracy of the better way to guess: by chance, or always the most frequent class."""
        return max(self.chance, self.majority.share)

    @property
    def is_at_chance(self) -> bool:
        """Whether the 95 % interval of the accuracy is not above the accuracy of guessing."""
        return self.top1_interval.low <= self.guessing

    @model_validator(mode="after")
    def _require_square_matrix(self) -> Self:
        count = len(self.classes)
        if [len(row) for row in self.confusion] != [count] * count:
            raise ValueError("the confusion matrix has no row and no column for every class")
        return self


def measure(
    run: StoredRun,
    scores: Scores,
    resampling: Resampling,
    *,
    part: Part,
    epoch: int,
    fingerprint: str,
    clips_sha256: str,
) -> Evaluation:
    """Compute the measures of a network from its scores.

    Args:
        run: the run.
        scores: logits and labels of the part's clips.
        resampling: gives the intervals.
        part: the part that was measured.
        epoch: epoch of the checkpoint.
        fingerprint: the fingerprint of this evaluation.
        clips_sha256: SHA-256 of the file that holds the answer to every clip.
    """
    config = run.config
    names = config.manifest.classes
    truth = scores.labels.numpy()
    classes, confusion = _by_class(truth, scores.answers, names)
    clips_of = np.bincount(truth, minlength=len(names))
    most = int(clips_of.argmax())
    return Evaluation(
        fingerprint=fingerprint,
        run=run_name(run.folder),
        dataset=config.dataset,
        method=config.settings.model.method,
        seed=config.settings.seed,
        split=config.split,
        part=part,
        epoch=epoch,
        selection=config.settings.selection,
        clips=len(truth),
        loss=scores.loss,
        top1=scores.accuracy,
        top1_interval=resampling.share(scores.is_right),
        top5=scores.top(5) if len(names) > 5 else None,
        top5_interval=resampling.share(scores.is_in_top(5)) if len(names) > 5 else None,
        resampled=resampling.unit,
        resampled_units=resampling.units,
        chance=1 / len(names),
        majority=Majority(name=names[most], share=clips_of[most] / len(truth)),
        calibration=calibrate(scores.probabilities.max(1), scores.is_right),
        classes=classes,
        confusion=confusion,
        caveats=[],
        clips_sha256=clips_sha256,
    )


def _by_class(
    truth: NDArray[np.int64], answers: NDArray[np.int64], names: Sequence[str]
) -> tuple[list[ClassReport], list[list[int]]]:
    """Return the measures of every class, and the confusion matrix."""
    # scikit-learn takes a second to import, and a recorded evaluation does not need it.
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    labels = list(range(len(names)))
    columns: tuple[Any, ...] = precision_recall_fscore_support(
        truth, answers, labels=labels, zero_division=0
    )
    reports = [
        ClassReport(name=name, precision=p, recall=r, f1=f, clips=n)
        for name, p, r, f, n in zip(names, *columns, strict=True)
    ]
    return reports, confusion_matrix(truth, answers, labels=labels).tolist()
