"""Runs the experiments of published tables with ``avsnn reproduce``."""

import json
from pathlib import Path

from tests.conftest import Command
from tests.e2e.test_kill import kill_when_it_says
from tests.warm import Warm

WORDS = ["reproduce", "attention", "--dataset", "demo", "--seeds", "1", "--device", "cpu"]
WORDS += ["--set", "model.channels=16", "--set", "epochs=1", "--set", "data.size=32"]


def test_a_table_killed_twice_is_completed_and_then_stays_unchanged(
    avsnn: Command, warm: Warm, small_demo: Path, tmp_path: Path
) -> None:
    words = [*WORDS, "--root", str(small_demo)]
    planned = avsnn(*words, "--dry-run")
    assert planned.stdout.count("0 of 1 epochs") == 6
    assert not (tmp_path / "runs").exists()
    for sentence in ("[2 of 6]", "[3 of 5]"):
        kill_when_it_says(warm, words, sentence, tmp_path)
    done = avsnn(*words)
    assert done.returncode == 0, done.stderr
    assert "[1 of 3] " in done.stderr
    table = json.loads((tmp_path / "runs" / "tables" / "attention-demo.json").read_text())
    assert [line["preset"] for line in table["lines"]] == [
        *("spatial-unaligned", "temporal-unaligned", "unaligned"),
        *("spatial", "temporal", "s-cmrl"),
    ]
    for line in table["lines"]:
        report = json.loads((tmp_path / line["runs"]["1"] / "report" / "test.json").read_text())
        assert line["top1"]["1"] == 100 * report["top1"] == line["mean"]
        assert line["spread"] is None
    page = (tmp_path / "runs" / "tables" / "attention-demo.md").read_text()
    assert page.count("\n|") == 8
    assert "epoch chosen on val" in page
    again = avsnn(*words, "--json")
    assert "[1 of" not in again.stderr
    assert json.loads(again.stdout) == table


def test_a_dry_run_names_the_published_choice_of_the_epoch_and_counts_the_runs(
    avsnn: Command, small_demo: Path
) -> None:
    words = ["reproduce", "alpha", "--dataset", "demo", "--root", str(small_demo), "--dry-run"]
    shown = avsnn(*words, "--seeds", "42,47", "--set", "selection=test")
    assert "epoch chosen on test, the published habit" in " ".join(shown.stdout.split())
    assert "10 runs to do" in shown.stdout


def test_wrong_arguments_end_with_one_sentence(avsnn: Command, small_demo: Path) -> None:
    for words, sentence in (
        (["everything"], "there is no table 'everything'; there are: alpha, attention, methods"),
        (["alpha", "--seeds", "1,x"], "--seeds '1,x' is not a list of different numbers"),
        (["alpha", "--dataset", "crema-d"], "crema-d is not prepared"),
    ):
        done = avsnn("reproduce", *words, "--root", small_demo)
        assert done.returncode == 2
        assert sentence in done.stderr
