"""Which settings data of one's own get."""

import pytest

from avsnn.pipeline.experiments.presets import load_presets
from avsnn.pipeline.new_dataset.manifest_files import choose_preset
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings


@pytest.mark.parametrize(
    ("clips", "fewest", "most"),
    [(48, 200, 400), (199, 200, 2000), (250, 500, 1000), (2500, 500, 3000)],
)
def test_settings_follow_the_number_of_clips_so_that_a_training_makes_enough_steps(
    clips: int, fewest: int, most: int
) -> None:
    name = choose_preset("video", clips)
    settings = build_settings(TrainSettings, load_presets("demo", [name]), ())
    steps = int(0.7 * clips) // settings.batch_size * settings.epochs
    assert fewest <= steps <= most
    # Where so few steps are made, the moving statistics of batch norm have not settled.
    assert settings.optimizer.recalibrate_norms == (steps < 500 or name == "tiny")


def test_recordings_of_events_get_the_settings_for_events_whatever_their_number_is() -> None:
    assert choose_preset("aedat2", 10) == choose_preset("aedat2", 10_000) == "demo-events"
