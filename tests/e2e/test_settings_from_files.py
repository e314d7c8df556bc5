import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ONE_SMALL_EPOCH, Command


def test_printed_settings_are_a_file_that_config_takes_without_any_data(
    avsnn: Command, tmp_path: Path
) -> None:
    words = ["train", "demo", "--print-config"]
    printed = avsnn(*words, "--preset", "healthy", "--set", "epochs=3")
    assert (printed.returncode, printed.stderr) == (0, "")
    settings = yaml.safe_load(printed.stdout)
    assert (settings["epochs"], settings["model"]["channels"]) == (3, 32)
    (tmp_path / "mine.yaml").write_text(printed.stdout)
    assert avsnn(*words, "--config", "mine.yaml").stdout == printed.stdout
    # The settings of the file take the place of the settings of the data set.
    other = avsnn("train", "crema-d", "--print-config", "--config", "mine.yaml")
    assert other.stdout == printed.stdout
    changed = avsnn(*words, "--config", "mine.yaml", "--preset", "add", "--set", "seed=7")
    settings = yaml.safe_load(changed.stdout)
    assert (settings["model"]["method"], settings["seed"], settings["epochs"]) == ("add", 7, 3)
    assert not (tmp_path / "runs").exists()
    unknown = avsnn("train", "deom", "--print-config")
    assert (unknown.returncode, "did you mean demo?" in unknown.stderr) == (2, True)


def test_the_settings_of_a_run_train_another_run_and_the_named_data_set_wins(
    avsnn: Command, small_demo: Path, small_run: Path, tmp_path: Path
) -> None:
    config = small_run / "config.yaml"
    words = ["--root", small_demo, "--config", config, "--set", "seed=5", "--run", "again"]
    done = avsnn("train", "demo", *words)
    assert done.returncode == 0, done.stderr
    first = yaml.safe_load(config.read_text())["settings"]
    second = yaml.safe_load((tmp_path / "again" / "config.yaml").read_text())["settings"]
    assert second == first | {"seed": 5}
    elsewhere = avsnn("train", "crema-d", "--config", config)
    assert "avsnn prepare crema-d" in elsewhere.stderr


def test_presets_are_listed_and_shown(avsnn: Command, tmp_path: Path) -> None:
    listed = avsnn("presets")
    assert "S-CMRL in which every layer fires from the first step." in listed.stdout
    rows = json.loads(avsnn("presets", "--json").stdout)
    found = {row["name"]: row["settings"] for row in rows}
    assert found["alpha-0.5"] == {"model": {"method": "s-cmrl", "alpha": 0.5}}
    shown = avsnn("presets", "show", "healthy")
    assert yaml.safe_load(shown.stdout) == found["healthy"]
    (tmp_path / "healthy-copy.yaml").write_text(shown.stdout)
    words = ["train", "demo", "--print-config", "--preset"]
    assert avsnn(*words, "healthy-copy.yaml").stdout == avsnn(*words, "healthy").stdout
    wrong = avsnn("presets", "show", "helthy")
    assert (wrong.returncode, "did you mean healthy?" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("front", [True, False])
def test_quiet_leaves_results_and_warnings(avsnn: Command, small_demo: Path, front: bool) -> None:
    words = ["train", "demo", "--root", small_demo, "--run", "r", *ONE_SMALL_EPOCH]
    done = avsnn(*(["-q", *words] if front else [*words, "--quiet"]))
    assert done.returncode == 0
    assert "next: avsnn evaluate r" in done.stdout
    assert "warmup_epochs is 5 and epochs is 1" in done.stderr
    assert "silent all epoch" in done.stderr
    assert "epoch 1/1" not in done.stderr
    assert "clips to train on" not in done.stderr


def test_verbose_prints_where_an_error_arose(avsnn: Command) -> None:
    plain, verbose = avsnn("evaluate", "nowhere"), avsnn("evaluate", "nowhere", "-v")
    assert plain.returncode == verbose.returncode == 2
    assert verbose.stderr.startswith("Traceback")
    assert verbose.stderr.endswith(plain.stderr)
    assert plain.stderr.count("\n") == 1
    assert avsnn("evaluate", "-qv", "nowhere").stderr == verbose.stderr


def test_words_after_two_hyphens_are_no_options(avsnn: Command) -> None:
    for word in ("-q", "-qv"):
        assert f"{word} is not a run folder" in avsnn("evaluate", "--", word).stderr


COMPLETED = {
    "data sets": ("avsnn train de", "demo\ndemo-events\ndemo-motion"),
    "after an option of all commands": ("avsnn -q prepare crem", "crema-d"),
    "presets": ("avsnn train demo --preset hea", "healthy"),
    "tables": ("avsnn reproduce meth", "methods"),
    "formats": ("avsnn export runs/a --format on", "onnx"),
    "runs": ("avsnn evaluate runs/", "runs/a\nruns/b"),
    "options": ("avsnn train demo --print", "--print-config"),
    "commands": ("avsnn pres", "presets"),
}


@pytest.mark.parametrize(("typed", "offered"), COMPLETED.values(), ids=COMPLETED)
def test_a_shell_completes_names_without_torch(
    avsnn_path: str, tmp_path: Path, typed: str, offered: str
) -> None:
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "sys.argv = ['avsnn']\n"
        "from avsnn.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [Path(avsnn_path).with_name("python"), "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={
            **os.environ,
            "_AVSNN_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
        },
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, offered, "False\n")
