"""What a reader must know beside the figures of a run."""

import pytest

from avsnn.pipeline.evaluation.caveats import caveats
from tests.pipeline.report.records import results

GUESSING = "The accuracy is no better than guessing, which is right for 16.7% of the clips"


@pytest.mark.parametrize(("accuracy", "is_said"), [(0.15, True), (0.9, False)])
def test_an_accuracy_whose_interval_includes_guessing_is_called_no_better_than_guessing(
    accuracy: float, is_said: bool
) -> None:
    run = results(accuracy=accuracy, detailed=False)
    said = caveats(run.config, run.evaluation, run.metrics, groups=12)
    assert any(sentence.startswith(GUESSING) for sentence in said) == is_said


def test_clips_of_one_speaker_say_nothing_about_other_speakers() -> None:
    run = results(clips=120, detailed=False)
    of_speakers = run.config.model_copy(update={"dataset": "av-digits"})
    said = caveats(of_speakers, run.evaluation, run.metrics, groups=1)
    assert (
        "All 120 clips are of one speaker, so the figures and the intervals say nothing about "
        "others." in said
    )
    assert not any("of one" in s for s in caveats(of_speakers, run.evaluation, [], groups=12))
    # The clips of the demo have no groups, so one group is no speaker.
    assert not any("of one" in s for s in caveats(run.config, run.evaluation, [], groups=1))


@pytest.mark.parametrize(
    ("count", "some"), [(None, ""), (2, "at most 2 clips of each class among ")]
)
def test_figures_of_the_train_part_say_which_clips_were_trained_on(
    count: int | None, some: str
) -> None:
    run = results(detailed=False)
    settings = run.config.settings
    settings = settings.model_copy(
        update={"data": settings.data.model_copy(update={"clips_per_class": count})}
    )
    config = run.config.model_copy(update={"settings": settings})
    evaluation = run.evaluation.model_copy(update={"part": "train"})
    said = caveats(config, evaluation, run.metrics, groups=12)
    assert f"The network was trained on {some}these clips, so these figures are no test." in said
