"""`avsnn evaluate` on one run and on several: what it measures, says, compares and records."""

import csv
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from tests.conftest import ONE_SMALL_EPOCH, Command
from tests.warm import Warm

SEEDS = ("3", "4")


@pytest.fixture(scope="module")
def seeds(warm: Warm, small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs that differ in their seed. Tests must only read these runs."""
    folder = tmp_path_factory.mktemp("seeds")
    for seed in SEEDS:
        words = ["train", "demo", "--root", str(small_demo), "--run", f"seed{seed}"]
        done = warm.run([*words, *ONE_SMALL_EPOCH, "--set", f"seed={seed}"], folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def runs(seeds: Path, small_run: Path, tmp_path: Path) -> list[str]:
    """Copies of three runs: two that differ in their seed, and one more with a third seed."""
    for seed in SEEDS:
        shutil.copytree(seeds / f"seed{seed}", tmp_path / f"seed{seed}")
    shutil.copytree(small_run, tmp_path / "default")
    return ["seed3", "seed4", "default"]


def answers(folder: Path) -> list[dict[str, str]]:
    with (folder / "report" / "test-clips.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_recorded_answers_give_the_measures(
    avsnn: Command, runs: list[str], tmp_path: Path
) -> None:
    result = json.loads(avsnn("evaluate", "seed3", "--json").stdout)
    rows = answers(tmp_path / "seed3")
    assert len(rows) == result["clips"] == len({row["key"] for row in rows})
    truth, answer = ([row[name] for row in rows] for name in ("truth", "answer"))
    right = np.array(truth) == np.array(answer)
    assert result["top1"] == right.mean() == result["top1_interval"]["value"]
    assert result["top1_interval"]["low"] <= result["top1"] <= result["top1_interval"]["high"]
    names = [row["name"] for row in result["classes"]]
    numbers = [torch.tensor([names.index(name) for name in side]) for side in (answer, truth)]
    for measure, witness in {
        "precision": multiclass_precision,
        "recall": multiclass_recall,
        "f1": multiclass_f1_score,
    }.items():
        wanted = witness(*numbers, num_classes=6, average=None).tolist()
        assert [row[measure] for row in result["classes"]] == pytest.approx(wanted)
    matrix = multiclass_confusion_matrix(*numbers, num_classes=6)
    assert result["confusion"] == matrix.tolist()
    assert result["chance"] == pytest.approx(1 / 6)
    assert result["majority"]["share"] == max(truth.count(name) for name in names) / len(truth)
    assert sum(one["clips"] for one in result["calibration"]["bins"]) == result["clips"]


def test_answers_that_were_changed_are_measured_again(
    avsnn: Command, runs: list[str], tmp_path: Path
) -> None:
    first = avsnn("evaluate", "seed3", "--json").stdout
    path = tmp_path / "seed3" / "report" / "test-clips.csv"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"ring", b"king"))
    assert avsnn("evaluate", "seed3", "--json").stdout == first
    assert path.read_bytes() == before


def test_several_runs_are_compared_on_screen_and_in_json(
    avsnn: Command, runs: list[str], tmp_path: Path
) -> None:
    done = avsnn("evaluate", *runs)
    assert done.returncode == 0, done.stderr
    assert "report: report.html" in done.stdout
    assert "3 seeds: top-1" in done.stdout
    found = json.loads(avsnn("evaluate", *runs, "--json").stdout)
    assert [run["run"] for run in found["runs"]] == runs
    rows = {run: [a["truth"] == a["answer"] for a in answers(tmp_path / run)] for run in runs}
    assert len(found["comparison"]["pairs"]) == 3
    for pair in found["comparison"]["pairs"]:
        outcomes = list(zip(rows[pair["first"]], rows[pair["second"]], strict=True))
        assert pair["only_first"] == outcomes.count((True, False))
        assert pair["only_second"] == outcomes.count((False, True))
    (group,) = found["comparison"]["seeds"]
    accuracies = [run["top1"] for run in found["runs"]]
    assert group["mean"] == pytest.approx(np.mean(accuracies))
    assert group["deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    page = (tmp_path / "report.html").read_text()
    assert all(run in page for run in runs)


def test_runs_on_other_clips_are_shown_side_by_side_without_a_test(
    avsnn: Command, runs: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "seed3" / "report" / "test-clips.csv"
    avsnn("evaluate", *runs)
    record = tmp_path / "seed3" / "report" / "test.json"
    content = path.read_bytes().replace(b"test-0", b"test-9")
    digest = json.loads(record.read_text())["clips_sha256"]
    path.write_bytes(content)
    record.write_text(record.read_text().replace(digest, hashlib.sha256(content).hexdigest()))
    found = json.loads(avsnn("evaluate", *runs, "--json").stdout)["comparison"]
    assert len(found["pairs"]) == 1
    assert len(found["notes"]) == 2
    assert "seed3 and seed4 answered to other clips" in found["notes"][0]


def test_a_run_that_is_not_finished_says_so_everywhere(
    avsnn: Command, runs: list[str], tmp_path: Path
) -> None:
    config = tmp_path / "seed3" / "config.yaml"
    config.write_text(re.sub(r"(?m)^  epochs: 1$", "  epochs: 9", config.read_text()))
    sentence = "The training is not finished: 1 of 9 epochs are done"
    done = avsnn("evaluate", "seed3")
    assert sentence in " ".join(done.stdout.split())
    assert sentence in avsnn("evaluate", "seed3", "--json").stdout
    report = tmp_path / "seed3" / "report"
    assert sentence in (report / "test.json").read_text()
    assert sentence in (report / "report.html").read_text()


def test_failures_of_the_preparation_are_said_everywhere(
    avsnn: Command, runs: list[str], tmp_path: Path
) -> None:
    config = tmp_path / "seed4" / "config.yaml"
    config.write_text(re.sub(r"(?m)^  failed: 0$", "  failed: 7", config.read_text()))
    done = avsnn("evaluate", "seed4", "seed3", "--out", "both.html")
    sentence = "The preparation of demo had 7 failures"
    assert f"note: seed4: {sentence}" in " ".join(done.stdout.split())
    assert sentence in (tmp_path / "both.html").read_text()


def test_robustness_and_insight_are_measured_once(
    avsnn: Command, runs: list[str], tmp_path: Path
) -> None:
    both = avsnn("evaluate", "seed3", "--robustness", "--insight", "--json")
    assert both.returncode == 0, both.stderr
    result = json.loads(both.stdout)
    levels = [point["snr"] for point in result["robustness"]["curves"][0]["points"]]
    assert levels == [None, 30, 25, 20, 15, 10, 5, 0]
    assert result["insight"]["energy"]["macs"] > 0
    again = avsnn("evaluate", "seed3", "--json")
    assert again.stdout == both.stdout
    assert "clips" not in again.stderr
    assert "Robustness" in (tmp_path / "seed3" / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seed3", "--out", "."], "is a folder; give the path of a file"),
        (["seed3", "--out", "page.pdf"], "must end in .html"),
        (["seed3", "--out", "none/page.html"], "there is no folder none"),
        (["seed3", "missing"], "missing is not a run folder: there is no such folder"),
        (["sede3"], "did you mean seed3? there are: "),
        (["seed3/config.yaml"], "it is a file; did you mean seed3?"),
    ],
)
def test_words_that_cannot_be_evaluated_are_one_sentence(
    avsnn: Command, runs: list[str], words: list[str], sentence: str
) -> None:
    done = avsnn("evaluate", *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_folders_of_the_same_name_and_copies_of_a_run_are_told_apart(
    avsnn: Command, runs: list[str], tmp_path: Path
) -> None:
    twice = avsnn("evaluate", "seed3", "seed3/")
    assert twice.returncode == 0, twice.stderr
    assert "seed3 (2) has the seed of seed3 (1)" in twice.stdout
    for number, seed in enumerate(("seed3", "seed4", "seed3")):
        shutil.copytree(tmp_path / seed, tmp_path / str(number) / "net")
    done = avsnn("evaluate", "0/net", "1/net", "2/net", "--json")
    found = json.loads(done.stdout)
    names = ["net (1)", "net (2)", "net (3)"]
    assert [run["run"] for run in found["runs"]] == names
    pairs = [(pair["first"], pair["second"]) for pair in found["comparison"]["pairs"]]
    assert pairs == [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    (seeds,) = found["comparison"]["seeds"]
    assert (seeds["runs"], seeds["seeds"]) == (names[:2], [3, 4])
    assert found["comparison"]["notes"] == [
        "net (3) has the seed of net (1), so the spread over seeds leaves net (3) out."
    ]


def test_a_renamed_run_has_its_present_name(
    avsnn: Command, runs: list[str], tmp_path: Path
) -> None:
    assert avsnn("evaluate", "seed3").returncode == 0
    (tmp_path / "seed3").rename(tmp_path / "renamed")
    assert json.loads(avsnn("evaluate", "renamed", "--json").stdout)["run"] == "renamed"


WRONG_RECORDS = {
    "a loss that is no number": ("test", lambda r: r | {"loss": float("nan")}),
    "no classes": ("test", lambda r: r | {"classes": [], "confusion": []}),
    "another accuracy than the answers": ("test", lambda r: r | {"top1": 0.5123}),
    "another number of clips": ("test", lambda r: r | {"clips": -1}),
    "no firing rates": ("test-insight", lambda r: r | {"rates": []}),
    "no curves": ("test-robustness", lambda r: r | {"curves": []}),
}


@pytest.mark.parametrize("case", WRONG_RECORDS)
def test_a_record_of_another_shape_is_measured_again(
    avsnn: Command, runs: list[str], tmp_path: Path, case: str
) -> None:
    name, change = WRONG_RECORDS[case]
    words = ["evaluate", "seed3", "--robustness", "--insight"]
    assert avsnn(*words).returncode == 0
    path = tmp_path / "seed3" / "report" / f"{name}.json"
    before = path.read_bytes()
    path.write_text(json.dumps(change(json.loads(before))))
    done = avsnn(*words)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == before


def test_the_measures_are_printed_also_where_the_page_cannot_be_written(
    avsnn: Command, runs: list[str], tmp_path: Path, tiny_disk: Path
) -> None:
    done = avsnn("evaluate", "seed3", "--out", tiny_disk / "page.html")
    assert done.returncode == 1
    assert "top-1 " in done.stdout
    assert re.fullmatch(r"(.*\n)*avsnn: [^\n]*disk is full[^\n]*\n", done.stderr, re.IGNORECASE)
    assert not list(tiny_disk.iterdir())


def test_places_that_are_no_plain_files_are_one_sentence(
    avsnn: Command, runs: list[str], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "page.html")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "seed4" / "report").write_text("a file")
    for words in (
        ["seed3", "--out", "page.html"],
        ["seed3", "--out", f"{'l' * 300}.html"],
        ["loop"],
        ["seed4"],
        ["seed3", "--root", "none"],
    ):
        done = avsnn("evaluate", *words)
        assert done.returncode in (1, 2)
        assert "trace" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("avsnn: ")
