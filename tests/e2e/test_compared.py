"""A table whose rows are compared under conditions, with ``avsnn reproduce``."""

import json
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.e2e.test_kill import kill_when_it_says
from tests.warm import Warm

TABLE = """\
against: add
noise: [20, 0]
folds: [published]
conditions:
  - few clips: {data.clips_per_class: 2}
  - all clips: {data.clips_per_class: null}
rows:
  - add
  - sound alone: audio
"""
WORDS = ["reproduce", "own.yaml", "--dataset", "demo", "--seeds", "1", "--device", "cpu"]
for _word in ("model.channels=16", "epochs=1", "data.size=32", "batch_size=4"):
    WORDS += ["--set", _word]


def test_rows_are_compared_clean_and_with_noise_and_a_killed_table_goes_on(
    avsnn: Command,
    warm: Warm,
    small_demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "own.yaml").write_text(TABLE)
    words = [*WORDS, "--root", str(small_demo), "--conditions", "few clips"]
    kill_when_it_says(warm, words, "row sound alone, few clips, published, seed 1 (2 of", tmp_path)
    lines = avsnn(*words, "--emit", "commands").stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].count(" --robustness --insight") == 1
    done = avsnn(*words)
    assert done.returncode == 0, done.stderr
    assert "(1 of 1)" in done.stderr
    path = tmp_path / "runs" / "tables" / "own-demo.json"
    (block,) = json.loads(path.read_text())["blocks"]
    for line in block["lines"]:
        (folder,) = line["runs"].values()
        report = tmp_path / folder / "report"
        assert "clips_per_class: 2" in (tmp_path / folder / "config.yaml").read_text()
        top1 = json.loads((report / "test.json").read_text())["top1"]
        assert line["figures"]["clean"]["top1"] == {"published 1": 100 * top1}
        curve = json.loads((report / "test-robustness.json").read_text())["curves"][-1]
        noisy = {point["snr"]: 100 * point["top1"]["value"] for point in curve["points"]}
        assert line["figures"]["0 dB"]["top1"] == {"published 1": noisy[0.0]}
        assert line["energy_uj"] > 0
    assert block["lines"][1]["figures"]["clean"]["difference"]["pairs"] == 1
    assert "2 runs of 4 to do." in avsnn(*WORDS, "--root", str(small_demo), "--dry-run").stdout
    again = avsnn(*words, "--json")
    assert "(1 of" not in again.stderr
    assert json.loads(again.stdout) == json.loads(path.read_text())


def test_folds_of_another_data_set_and_unknown_names_end_with_one_sentence(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(TABLE)
    for words, sentence in (
        (
            ["own.yaml", "--set", "data.clips_per_class=3"],
            "'few clips' and 'all clips' have the sa",
        ),
        (["hard"], "has the fold 'without-george', and demo has no split of this name"),
        (["hard", "--folds", "george"], "--folds: the table hard has no 'george'; did you mean"),
        (["hard", "--conditions", "5"], "--conditions: the table hard has no '5'; "),
        (["methods", "--folds", "one"], "--folds: the table methods has no 'one'; it has none."),
    ):
        done = avsnn("reproduce", *words, "--dataset", "demo", "--root", small_demo)
        assert done.returncode == 2
        assert sentence in done.stderr
