"""Lists runs: what is special about each, in every state, of every version, for every screen."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.conftest import Command
from tests.warm import Warm


def listed(avsnn: Command, *words: str | Path) -> dict[str, dict[str, Any]]:
    """Return the rows of the runs, in the order of the list, by the name of the run."""
    done = avsnn("status", "--json", *words)
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)["runs"]}


@pytest.fixture
def add_run(small_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that copies the run of one epoch, with changed words in config.yaml."""

    def add(name: str, **changes: str) -> Path:
        folder = Path(shutil.copytree(small_run, tmp_path / "runs" / name))
        config = folder / "config.yaml"
        text = config.read_text()
        for key, value in changes.items():
            # The group of the network comes first, and has the first setting of each name.
            text, count = re.subn(rf"(?m)^( *){key}: .*$", rf"\g<1>{key}: {value}", text, count=1)
            assert count, key
        config.write_text(text)
        return folder

    return add


def test_a_run_is_listed_with_what_is_special_about_it(
    avsnn: Command, add_run: Callable[..., Path]
) -> None:
    add_run("plain", channels="32", batch_size="32")
    add_run("preset", channels="32", batch_size="32", temperature="0.2", seed="7")
    add_run("own", alpha="0.25")
    rows = listed(avsnn)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:+]+", rows["plain"]["begun"])
    assert rows["plain"] | {"dataset": "demo", "method": "s-cmrl"} == rows["plain"]
    assert (rows["plain"]["preset"], rows["plain"]["differs"]) == ("", {})
    assert (rows["preset"]["preset"], rows["preset"]["differs"]) == ("temperature-0.2", {})
    assert (rows["preset"]["seed"], rows["preset"]["epochs_planned"]) == (7, 1)
    differs = {"model.channels": 16, "model.alpha": 0.25, "batch_size": 8}
    assert (rows["own"]["preset"], rows["own"]["differs"]) == ("", differs)
    assert 0 <= rows["own"]["best_accuracy"] <= 1
    shown = avsnn("status").stdout
    assert "--preset temperature-0.2" in shown
    assert "channels=16 alpha=0.25 batch_size=8" in shown


def test_a_run_is_finished_unfinished_or_running(
    avsnn: Command, add_run: Callable[..., Path]
) -> None:
    add_run("finished")
    add_run("unfinished", epochs="3")
    folder = add_run("running", epochs="3")
    with FileLock(folder / ".lock"):
        rows = listed(avsnn)
    assert {name: row["state"] for name, row in rows.items()} == {name: name for name in rows}
    assert listed(avsnn)["running"]["state"] == "unfinished"


def test_runs_of_plugins_of_newer_versions_and_damaged_ones_are_listed_with_what_can_be_read(
    avsnn: Command, add_run: Callable[..., Path]
) -> None:
    add_run("a-plugin", method="mean-exchange")
    newer = add_run("b-newer", avsnn="9.0.0")
    config = newer / "config.yaml"
    config.write_text(config.read_text().replace("    steps: 4\n", "    steps: 4\n    warp: 3\n"))
    add_run("c-dataset", dataset="birds")
    damaged = add_run("d-damaged")
    (damaged / "config.yaml").write_text("settings: [")
    (add_run("e-settings") / "config.yaml").write_text("settings: 3\nseed: [1]\n")
    (add_run("f-binary") / "config.yaml").write_text(
        "dataset: {a: 1}\nsettings: {seed: x, model: !!binary aGk=, 7: !!set {a}}\n"
    )
    add_run("g-whole")
    rows = listed(avsnn)
    assert [*rows] == [*sorted(rows)]
    for name in ("a-plugin", "b-newer", "c-dataset"):
        assert (rows[name]["state"], rows[name]["epochs"]) == ("finished", 1)
        assert rows[name]["best_accuracy"] == rows["g-whole"]["best_accuracy"]
    assert "the method 'mean-exchange', which is no method" in rows["a-plugin"]["unreadable"]
    assert rows["a-plugin"]["method"] == "mean-exchange"
    assert rows["b-newer"]["differs"]["model.warp"] == 3
    assert "made by avsnn 9.0.0" in rows["b-newer"]["unreadable"]
    assert rows["c-dataset"]["dataset"] == "birds"
    assert "no data set is called 'birds'" in rows["c-dataset"]["unreadable"]
    for name in ("d-damaged", "e-settings", "f-binary"):
        assert rows[name]["unreadable"]
        assert rows[name]["state"] == "unreadable"
    assert rows["g-whole"]["unreadable"] == ""
    shown = avsnn("status").stdout
    assert all(name in shown for name in rows)


def test_runs_are_sorted_and_a_wrong_key_gets_the_nearest(
    avsnn: Command, add_run: Callable[..., Path]
) -> None:
    for name, seed, begun in (("a", "9", "2024-01-02"), ("b", "8", "2025-01-02"), ("c", "7", "")):
        add_run(name, seed=seed, begun=begun or "null")
    for key, order in {"name": "abc", "seed": "cba", "date": "bac"}.items():
        assert "".join(listed(avsnn, "--sort", key)) == order
    wrong = avsnn("status", "--sort", "acuracy")
    assert wrong.returncode == 2
    assert "did you mean accuracy?" in wrong.stderr


def test_names_of_runs_are_whole_and_lines_fit_a_terminal(
    warm: Warm, add_run: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["a", "weight-attention-at-three-thresholds-seed42-075f49ed-again"]
    for name in names:
        add_run(name, method="weight-attention", dataset="a-data-set-with-a-long-name")
    done = warm.run_on_terminal(["status"], tmp_path)
    table = done.stdout.split("runs in runs")[1].split("unreadable:")[0]
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in table.splitlines()]
    assert set(names) <= {line.strip() for line in lines}
    assert max(map(len, lines[:-1])) <= 100


def test_an_empty_place_says_what_to_do_and_where_own_data_sets_are_found(
    avsnn: Command,
) -> None:
    shown = avsnn("status").stdout
    for words in ("avsnn prepare demo", "No run is in runs", "--datasets", "AVSNN_DATASETS"):
        assert words in shown


def test_a_prepared_data_set_whose_yaml_is_not_found_is_named(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_demo / "demo" / "state", tmp_path / "data" / "birds" / "state")
    shutil.copytree(small_demo / "demo", tmp_path / "data" / "demo")
    shown = json.loads(avsnn("status", "--json").stdout)
    assert {row["dataset"] for row in shown["stages"]} == {"demo"}
    assert [row["dataset"] for row in shown["faults"]] == ["birds"]
    assert "no data set is called 'birds'" in shown["faults"][0]["fault"]
