from pathlib import Path

import pytest

from avsnn.models.zoo import build
from avsnn.pipeline.experiments.experiment import Changes, Experiment, Plan
from avsnn.pipeline.experiments.presets import load_presets, preset_names
from avsnn.pipeline.experiments.read_table import load_table, table_names
from avsnn.pipeline.experiments.reproduce import summarise
from avsnn.pipeline.experiments.tables import ReproducedTable
from avsnn.pipeline.runs.config import make_config
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings

PUBLISHED = {
    "methods": {
        "WeightAttention": 64.78,
        "SCA": 66.53,
        "CMCI": 70.02,
        "S-CMRL": 73.25,
        "visual": 43.15,
        "audio": 65.86,
        "audio-visual (add)": 66.53,
    },
    "alpha": {
        "alpha 0": (69.62 + 70.83 + 71.77) / 3,
        "alpha 1.5": (72.72 + 71.24 + 72.98) / 3,
    },
}


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_makes_a_network(preset: str) -> None:
    settings = build_settings(TrainSettings, load_presets("demo", [preset]), [])
    build(settings.model, classes=6)


@pytest.mark.parametrize("name", table_names())
def test_no_two_rows_of_a_table_are_the_same_experiment(name: str) -> None:
    table = load_table(name)
    settings = [
        build_settings(
            TrainSettings, load_presets("crema-d", [row.preset] if row.preset else []), row.settings
        )
        for row in table.rows
    ]
    assert len({row_settings.model_dump_json() for row_settings in settings}) == len(settings)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_accuracies_are_those_of_the_paper(name: str, small_demo: Path) -> None:
    table = load_table(name)
    config = make_config("demo", TrainSettings(), root=small_demo)
    config = config.model_copy(update={"dataset": "crema-d"})
    experiments = [Experiment(row, 42, config, Path("nowhere")) for row in table.rows]
    plan = Plan(table, Changes(), experiments, Path())
    filled = summarise(plan, plan.states())
    assert isinstance(filled, ReproducedTable)
    found = {line.name: line.published for line in filled.lines}
    for row, accuracy in PUBLISHED[name].items():
        assert found[row] == pytest.approx(accuracy)
