"""What the page says, without a browser."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avsnn.models.neuron import LIF
from avsnn.models.zoo import METHODS, ModelSettings, build
from avsnn.pipeline.evaluation.calibration import calibrate
from avsnn.pipeline.evaluation.comparison import compare
from avsnn.pipeline.evaluation.intervals import Share
from avsnn.pipeline.evaluation.results import RunResults
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.report.commands import commands
from avsnn.pipeline.report.diagram import draw_network
from avsnn.pipeline.report.labels import label_runs
from avsnn.pipeline.report.page import make_page, write_report
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from tests.conftest import PROJECT
from tests.pipeline.report.records import CLIPS, results


def charts_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    assert found
    charts: dict[str, Any] = json.loads(found[1])
    return charts


def visible(page: str) -> str:
    """Return the text of a page without scripts and styles."""
    return re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)


def test_page_is_written_once_and_rewritten_only_if_something_changed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert write_report([results()], None, path) == path
    before = path.stat()
    assert write_report([results()], None, path) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    write_report([results(seed=2)], None, path)
    assert path.stat().st_ino != before.st_ino


def test_a_folder_where_nobody_may_write_gets_no_page_and_no_error(tiny_disk: Path) -> None:
    remount = ["mount", "-o", "remount,ro", str(tiny_disk)]
    subprocess.run(remount, check=True)
    assert write_report([results()], None, tiny_disk / "report.html") is None
    assert list(tiny_disk.iterdir()) == []


def test_damaged_metrics_are_said_and_the_curves_show_the_epochs_before() -> None:
    damage = "runs/r/metrics.jsonl is damaged in line 6"
    page = make_page([results(damage=damage, epochs=5)], None)
    assert f"{damage}; the curves show the 5 epochs before." in visible(page)
    assert {row[2] for row in charts_of(page)["curve-loss"]["rows"]} == {1, 2, 3, 4, 5}


def test_figures_of_another_epoch_than_the_best_are_said() -> None:
    found = results(epochs=20)
    stale = found.evaluation.model_copy(update={"epoch": 7})
    assert "names another best epoch" not in visible(make_page([found], None))
    assert "names another best epoch" in visible(
        make_page([found._replace(evaluation=stale)], None)
    )


@pytest.mark.parametrize(
    ("confidence", "said"),
    [
        (0.9, "The mean confidence is 90.0 %, 15.0 points above the accuracy"),
        (0.5, "The mean confidence is 50.0 %, 25.0 points below the accuracy"),
        (0.75, "The mean confidence is 75.0 %, equal to the accuracy"),
    ],
)
def test_the_summary_shows_the_interval_and_the_direction_of_the_calibration(
    confidence: float, said: str
) -> None:
    found = results()
    update = {
        "top1": 0.75,
        "top1_interval": Share(value=0.75, low=0.612, high=0.803),
        "calibration": calibrate(np.full(CLIPS, confidence), np.arange(CLIPS) % 4 > 0),
    }
    page = make_page([found._replace(evaluation=found.evaluation.model_copy(update=update))], None)
    assert "<strong>61.2 % to 80.3 %</strong>" in page
    assert f"bootstrap over {found.evaluation.resampled_units}" in page
    assert said in page


def test_a_run_without_a_mistake_has_the_exact_interval() -> None:
    page = make_page([results(accuracy=1.0)], None)
    assert "exact binomial interval over" in page
    assert "\N{PLUS-MINUS SIGN}" not in visible(page)


def test_a_run_without_robustness_insight_examples_and_epochs_has_a_page() -> None:
    bare = results(detailed=False)._replace(examples=None, metrics=[])
    page = make_page([bare], None)
    assert "avsnn evaluate --insight" in visible(page).replace("&#39;", "'")
    assert set(charts_of(page)) == {"accuracy", "calibration", "classes", "confusion-1"} | {
        name for name in charts_of(page) if name.startswith("confusions")
    }


def test_numbers_that_are_not_numbers_and_names_that_are_no_text_leave_the_page_whole(
    tmp_path: Path,
) -> None:
    found = results(classes=["a", "b", "\udcff"], detailed=False)
    found.metrics[3]["loss"] = float("nan")
    found.metrics[4]["val_loss"] = float("inf")
    path = tmp_path / "r.html"
    write_report([found], None, path)
    rows = charts_of(path.read_text())["curve-loss"]["rows"]
    assert [row[3] for row in rows].count(None) == 2


def test_every_epoch_of_a_short_run_and_few_epochs_of_a_long_run_have_a_column() -> None:
    def epochs(count: int) -> list[int]:
        rows = charts_of(make_page([results(epochs=count)], None))["rates-1"]["rows"]
        return sorted({row[1] for row in rows})

    assert epochs(20) == list(range(1, 21))
    assert 30 <= len(epochs(400)) <= 60
    assert epochs(400)[-1] == 400


def test_no_name_of_a_user_is_a_part_of_an_expression() -> None:
    name = "a-name-that-somebody-chose"
    runs = [results(name, classes=[name, "b", "c"]), results("other", seed=2)]
    charts = charts_of(make_page(runs, None))

    def expressions(tree: Any) -> list[str]:
        if isinstance(tree, list):
            return [found for one in tree for found in expressions(one)]
        if not isinstance(tree, dict):
            return []
        keys = ("expr", "signal", "calculate", "filter", "test")
        own = [str(tree[key]) for key in keys if key in tree]
        return own + [found for one in tree.values() for found in expressions(one)]

    found = expressions([chart["spec"] for chart in charts.values()])
    assert found
    assert not [one for one in found if name in one]


def test_two_runs_of_one_name_have_two_labels() -> None:
    runs = label_runs([results("r"), results("r", seed=2), results("s")])
    assert [run.label for run in runs] == ["r (1)", "r (2)", "s"]


def test_method_and_seed_replace_the_long_name_of_a_folder_where_both_are_unique() -> None:
    def labels(*runs: RunResults) -> list[str]:
        return [run.label for run in label_runs(runs)]

    long = [
        results("demo-add-seed42-17a3bc", method="add"),
        results("demo-add-seed1-17a3bc", method="add", seed=1),
    ]
    assert labels(*long) == ["add, seed 42", "add, seed 1"]
    # Two runs of one method and seed keep the names of their folders, and so does a short name.
    twin = results("demo-add-seed42-99d0ef", method="add")
    assert labels(*long, twin) == [long[0].name, "add, seed 1", twin.name]
    assert labels(results("add", method="add")) == ["add"]
    taken = results("add, seed 42", method="cmci")
    assert labels(long[0], taken) == [long[0].name, taken.name]


def test_a_run_with_a_short_label_shows_the_name_of_its_folder_in_its_card() -> None:
    runs = [results("demo-add-seed42-17a3bc", method="add"), results("b", seed=3)]
    page = visible(make_page(runs, compare(runs)))
    summary = page.partition('aria-label="Summary"')[2].partition("</section>")[0]
    assert "Run folder demo-add-seed42-17a3bc" in summary
    assert "Run folder b" not in summary
    pairs = page.partition('id="pairs"')[2].partition("</figure>")[0]
    assert "<td>add, seed 42</td><td>b</td>" in pairs


def test_chance_of_naming_neither_of_two_classes_is_the_rest() -> None:
    chart = charts_of(make_page([results(classes=["a", "b", "c", "d", "e"])], None))["swapped"]
    found = {row[0]: row[chart["keys"].index("chance")] for row in chart["rows"]}
    chances = {"class of the picture": 0.2, "class of the sound": 0.2, "neither": 0.6}
    assert found == pytest.approx(chances)


def test_the_spread_over_seeds_is_in_points() -> None:
    runs = [results("a", accuracy=0.9), results("b", seed=2, accuracy=0.7)]
    comparison = compare(runs)
    page = visible(make_page(runs, comparison))
    assert f'<td class="n">{100 * comparison.seeds[0].deviation:.1f} points</td>' in page


def test_the_features_and_the_confusion_name_the_classes_in_one_order() -> None:
    charts = charts_of(make_page([results(classes=["c", "a", "b"])], None))
    of_features, of_confusion = charts["embedding-1"], charts["confusion-1"]
    place = of_features["keys"].index("truth")
    assert list(dict.fromkeys(row[place] for row in of_features["rows"])) == ["c", "a", "b"]
    assert list(dict.fromkeys(row[0] for row in of_confusion["rows"])) == ["c", "a", "b"]


def test_the_energy_of_layers_has_a_legend_and_a_unit() -> None:
    layers = charts_of(make_page([results()], None))["layers-1"]["spec"]["layer"]
    for layer, name in zip(layers, ("spiking network", "same layer as ANN"), strict=True):
        encoding = layer["encoding"]
        assert encoding["x"]["title"] == "energy per clip in nJ"
        assert encoding["color"]["datum"] == name
        assert name in encoding["color"]["scale"]["domain"]


def test_the_table_of_neurobench_names_the_runs_in_its_file() -> None:
    keys = charts_of(make_page([results("r"), results("s", seed=2)], None))["neurobench"]["keys"]
    assert keys == ["key", "r", "s"]


def spiking_layers(method: str) -> dict[str, float]:
    network = build(ModelSettings(method=method, channels=16), classes=3)
    names = [name for name, module in network.named_modules() if isinstance(module, LIF)]
    return dict.fromkeys(names, 0.1)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_diagram_of_every_method_shows_every_layer_once_and_leads_to_the_readout(
    method: str,
) -> None:
    rates = spiking_layers(method)
    for drawing in draw_network("n", "t", method, rates).drawings:
        blocks = [box.block for box in drawing.boxes]
        assert sum(len(block.layers) for block in blocks) == len(rates)
        names = [
            (block.stage, block.lane, layer.name) for block in blocks for layer in block.layers
        ]
        assert len(set(names)) == len(names)
        assert blocks[-1].stage == "readout"
        # Every block but the inputs has an arrow to itself, and no box leaves the drawing.
        assert len(drawing.arrows) >= len([b for b in blocks if b.stage != "input"])
        for box in drawing.boxes:
            assert 0 <= box.x <= drawing.width - 160
            assert 0 <= box.y <= drawing.height - box.block.height
        for one in drawing.boxes:
            for other in drawing.boxes:
                apart = one is other or (
                    abs(one.x - other.x) >= 166
                    or one.y + one.block.height <= other.y
                    or other.y + other.block.height <= one.y
                )
                assert apart


def typed(run: RunResults, command: str) -> RunResults:
    made_with = {**run.config.made_with, "command": command}
    return run._replace(config=run.config.model_copy(update={"made_with": made_with}))


@pytest.mark.parametrize(
    "command",
    ["avsnn train demo --set epochs=20", "avsnn train demo --preset healthy", "avsnn reproduce x"],
)
def test_commands_repeat_the_settings_exactly(command: str) -> None:
    found = typed(results("a run; rm -rf ~"), command)
    prepare, train, evaluate = (shlex.split(line) for line in commands(label_runs([found])[0]))
    words = train[train.index("--set") :]
    assert train[:5] == ["avsnn", "train", "demo", "--run", "runs/a run; rm -rf ~"]
    assert build_settings(TrainSettings, (), words[1::2]) == found.config.settings
    assert build_settings(PrepareSettings, (), prepare[4::2]) == found.config.data.settings
    assert evaluate[2:] == ["runs/a run; rm -rf ~", "--part", "test", "--robustness", "--insight"]


def test_a_setting_that_was_typed_is_in_the_command_although_it_is_the_default() -> None:
    found = typed(results(), "avsnn train demo --set batch_size=128 --set=model.tau=2.0")
    train = commands(label_runs([found])[0])[1]
    assert found.config.settings.batch_size == 128
    assert "batch_size=128" in train
    assert "model.tau=2.0" in train


def test_template_style_and_script_are_installed_with_the_package() -> None:
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    patterns = pyproject["tool"]["setuptools"]["package-data"]["avsnn"]
    package = PROJECT / "avsnn"
    installed = {path for pattern in patterns for path in package.glob(pattern)}
    assert set((package / "pipeline" / "report" / "template").iterdir()) <= installed
