"""Runs the experiments of published tables with ``avsnn reproduce``."""

import json
import os
import signal
from pathlib import Path

from avsnn.pipeline.engine.lock import lock_folder
from tests.conftest import Command, remains_of_a_dead_writer
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
    for sentence in ("row temporal, seed 1 (2 of 6)", "row spatial, aligned, seed 1 (3 of 5)"):
        kill_when_it_says(warm, words, sentence, tmp_path)
    done = avsnn(*words)
    assert done.returncode == 0, done.stderr
    assert "row spatial, aligned, seed 1 (1 of 3)" in done.stderr
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
    assert "(1 of" not in again.stderr
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
        (
            ["everything"],
            "there is no table 'everything'; there are: alpha, attention, hard, methods",
        ),
        (["method"], "did you mean methods?"),
        (
            [],
            "a published table (alpha, attention, hard, methods, snr, temperature)",
        ),
        (["methods", "--rows", "s-crml"], "has no row 's-crml'; did you mean S-CMRL?"),
        (["methods", "--preset", "helthy"], "did you mean healthy?"),
        (["alpha", "--seeds", "1,x"], "--seeds '1,x' is not a list of different numbers"),
        (["alpha", "--seeds", "1, 01"], "--seeds '1, 01' is not a list of different numbers"),
        (["alpha", "--dataset", "crema-d"], "crema-d is not prepared"),
    ):
        done = avsnn("reproduce", *words, "--root", small_demo)
        assert done.returncode == 2
        assert sentence in done.stderr


def test_a_run_that_cannot_be_read_hides_no_other_run_and_the_table_is_called_incomplete(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    words = [*WORDS, "--root", str(small_demo)]
    words[1] = "snr"
    assert avsnn(*words).returncode == 0
    path = tmp_path / "runs" / "tables" / "snr-demo.json"
    before = json.loads(path.read_text())["lines"]
    folders = [tmp_path / line["runs"]["1"] for line in before]
    # Reading this file gives an I/O error.
    (folders[0] / "metrics.jsonl").unlink()
    (folders[0] / "metrics.jsonl").symlink_to("/proc/self/mem")
    # This run is not evaluated, and its configuration says nothing.
    (folders[1] / "config.yaml").write_text("- 1")
    (folders[1] / "report" / "test.json").unlink()
    # Nothing is wrong with this run, but it is not evaluated yet.
    (folders[2] / "report" / "test.json").unlink()
    dead = remains_of_a_dead_writer(path.parent, "snr-demo.json")
    for extra in ([], ["--dry-run"]):
        done = avsnn(*words, *extra)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert "the table is incomplete: " in done.stderr.splitlines()[-1]
        assert f"{folders[0].name}/metrics.jsonl cannot be read" in done.stdout
    after = json.loads(path.read_text())["lines"]
    assert [line["top1"]["1"] is None for line in after] == [True, True, False, False]
    assert after[2:] == before[2:]
    assert "config.yaml cannot be read" in after[1]["failed"]["1"]
    assert not dead.exists()


def test_a_second_reproduce_of_the_same_table_is_told_to_choose_another_runs(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    words = [*WORDS, "--root", str(small_demo)]
    words[1] = "snr"
    planned = json.loads(avsnn(*words, "--dry-run", "--json").stdout)
    with lock_folder(tmp_path / planned["lines"][0]["runs"]["1"]):
        done = avsnn(*words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("or choose another --runs.")


def test_sigterm_ends_reproduce_with_exit_code_75_and_the_same_command_goes_on(
    avsnn: Command, warm: Warm, small_demo: Path, tmp_path: Path
) -> None:
    words = [*WORDS, "--root", str(small_demo)]
    words[1] = "snr"
    process = warm.start(words, tmp_path)
    for line in process.stderr:
        if "(2 of 4)" in line:
            os.kill(process.pid, signal.SIGTERM)
            break
    said = process.stderr.read()
    assert process.wait() == 75, said
    assert "avsnn: told to end; " in said.splitlines()[-1]
    assert "(4 of 4)" not in said
    done = avsnn(*words)
    assert done.returncode == 0, done.stderr
