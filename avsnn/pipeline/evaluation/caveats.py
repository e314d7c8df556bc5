"""What a reader must know beside the figures of a run."""

from typing import Any

from avsnn.pipeline.evaluation.measures import Evaluation
from avsnn.pipeline.runs.config import RunConfig

# A bootstrap of fewer groups gives intervals that are too narrow (Cameron, Gelbach and Miller 2008
# call 5 to 30 groups few).
FEW_GROUPS = 20


def caveats(
    config: RunConfig, evaluation: Evaluation, metrics: list[dict[str, Any]], *, groups: int
) -> list[str]:
    """Return what a reader must know beside the figures of a run, as sentences.

    Args:
        config: the configuration of the run.
        evaluation: the measures.
        metrics: the lines of ``metrics.jsonl``, one for each finished epoch.
        groups: number of groups of the clips, such as speakers.
    """
    found = []
    data, epochs = config.data, config.settings.epochs
    if len(metrics) < epochs and metrics:
        found.append(
            f"The training is not finished: {len(metrics)} of {epochs} epochs are done, so the "
            "figures are those of an unfinished run."
        )
    if config.converted_from:
        found.append(
            f"The weights were converted from {config.converted_from}: nobody knows here from "
            "which epoch the weights are, nor on which clips the network was trained."
        )
    if data.failed:
        count = "1 failure" if data.failed == 1 else f"{data.failed:,} failures"
        found.append(
            f"The preparation of {data.dataset} had {count}; clips that could not "
            "be prepared are in no part, and no figure counts them (failures.jsonl names them)."
        )
    found += [f"Preparation of {data.dataset}: {note}." for note in data.notes]
    if evaluation.selection == "test":
        found.append(
            "The epoch was chosen on the test part itself, as in the published runs, so the "
            "accuracy on the test part is too high."
        )
    if evaluation.selection == evaluation.part == "val":
        found.append(
            "The epoch was chosen on this part itself, so the accuracy on this part is too high."
        )
    if evaluation.part == "train":
        each = config.settings.data.clips_per_class
        some = "" if each is None else f"at most {each:,} clips of each class among "
        found.append(f"The network was trained on {some}these clips, so these figures are no test.")
    if evaluation.top1 == 1:
        found.append(
            f"No mistake among {evaluation.clips:,} clips is no proof of perfection: the 95 % "
            f"interval of the accuracy goes down to {evaluation.top1_interval.low:.1%}."
        )
    if evaluation.is_at_chance:
        found.append(
            "The accuracy is no better than guessing, which is right for "
            f"{evaluation.guessing:.1%} of the clips: the 95 % interval is not above this figure."
        )
    if groups == 1 < evaluation.clips and config.manifest.group != "none":
        found.append(
            f"All {evaluation.clips:,} clips are of one {config.manifest.group}, so the figures "
            "and the intervals say nothing about others."
        )
    if evaluation.resampled == "groups" and evaluation.resampled_units < FEW_GROUPS:
        found.append(
            f"The intervals come from {evaluation.resampled_units} groups of clips only, so the "
            "intervals are too narrow."
        )
    return found
