import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from avsnn.datasets_manifest import names
from tests.conftest import ALONE, SMALL_SHARDS, Command
from tests.own_dataset import OwnDataset

BAD_INPUT = {
    "unknown data set": (
        ["prepare", "nope"],
        "av-digits, crema-d, demo, demo-events, demo-motion, mnistdvs",
    ),
    "unknown split": (["datasets", "check", "crema-d", "--split", "x"], "published, speaker"),
    "clips not yet known": (["datasets", "check", "urbansound8k-av"], "prepare urbansound8k-av"),
    "source without the folders": (["prepare", "urbansound8k-av", "--source", "."], "_vision"),
    "missing source folder": (["prepare", "av-digits", "--source", "/proc/nope"], "/proc/nope"),
    "root that cannot be written": (["prepare", "demo", "--root", "/proc/nope"], "/proc/nope"),
    "root that is a file": (["prepare", "demo", "--root", "file"], "file"),
    "wrong type": (["prepare", "demo", "--limit", "many"], "--limit"),
    "value out of range": (["prepare", "demo", "--limit", "0"], "--limit"),
    "unknown option": (["prepare", "demo", "--fast"], "--fast"),
    "unknown command": (["prepair", "demo"], "did you mean prepare?"),
    "unknown command of a group": (["presets", "shwo", "x"], "did you mean presets show?"),
    "command of a group left out": (["presets", "add"], "did you mean presets show add?"),
    "mistyped option of the program": (["--verson"], "avsnn has no option --verson; did you mean "),
    "setting as an option": (["prepare", "demo", "--frames=3"], "write --set extract.frames=3 to"),
    "setting without --set": (["train", "demo", "epochs=3"], "write --set epochs=3 to"),
    "device as an option": (["train", "demo", "--gpu"], "did you mean --device cuda?"),
    "missing argument": (["train"], "dataset"),
    "unknown setting": (["prepare", "demo", "--set", "audio.hops=1"], "audio.hop"),
    "mistyped data set": (["prepare", "deom"], "did you mean demo?"),
    "data set in other letters": (["prepare", "CREMA_D"], "did you mean crema-d?"),
    "start of a data set's name": (["prepare", "urbansound8k"], "did you mean urbansound8k-av?"),
    "word for datasets": (["list"], "did you mean datasets?"),
    "no data set": (["verify"], "'avsnn datasets' lists all"),
    "word for a device": (
        ["train", "demo", "--device", "gpu"],
        "did you mean cuda? there are: auto, cpu, cuda.",
    ),
    "setting with spaces": (
        ["train", "demo", "--set", "epochs", "=", "3"],
        "write --set epochs=3.",
    ),
    "setting after a colon": (["train", "--set", "epochs:", "3", "demo"], "write --set epochs=3."),
    "command after its argument": (["demo", "train"], "did you mean train demo?"),
    "word for show": (["presets", "print", "healthy"], "did you mean presets show healthy?"),
    "short word for --set": (["train", "demo", "-s", "epochs=3"], "did you mean --set?"),
    "seed of a table": (["reproduce", "methods", "--seed", "3"], "did you mean --seeds?"),
    "version of a command": (["train", "--version"], "did you mean avsnn --version?"),
    "store in memory": (
        ["prepare", "demo", "--store", "memory://x"],
        "x is in the memory",
    ),
    "chain of stores": (["prepare", "demo", "--store", "dir::memory://x"], "a chain of stores"),
    "store of a strange kind": (["prepare", "demo", "--store", "data://x"], "data://x cannot be"),
    "store that is away": (["prepare", "demo", "--store", "ftp://127.0.0.1:1/x"], "refused"),
    "train before prepare": (["train", "demo"], "avsnn prepare demo"),
    "unknown preset": (["train", "demo", "--preset", "x"], "'avsnn presets' lists all presets"),
    "folder that is no run": (["evaluate", "."], "is not a run folder"),
    "unknown part": (["evaluate", ".", "--part", "dev"], "--part"),
    "two parts": (["evaluate", ".", "--part", "val", "--split", "test"], "--split test differ"),
    "two parts, one the default": (["evaluate", ".", "--part", "test", "--split", "val"], "differ"),
    "unknown part, former name": (["evaluate", ".", "--split", "dev"], "--split"),
}


@pytest.mark.parametrize(("words", "part_of_message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_ends_with_one_sentence_and_exit_code_2(
    avsnn: Command, tmp_path: Path, words: list[str], part_of_message: str
) -> None:
    (tmp_path / "file").touch()
    done = avsnn(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"avsnn: [^\n]+\n", done.stderr), done.stderr
    assert part_of_message in done.stderr


def test_a_full_disk_ends_with_one_sentence_and_keeps_finished_work(
    avsnn: Command, tiny_disk: Path
) -> None:
    done = avsnn("prepare", "demo", "--limit", "60", "--root", tiny_disk, *ALONE)
    assert done.returncode == 1
    assert "is full" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    kept_files = list((tiny_disk / "demo" / "raw").rglob("*.*"))
    assert kept_files
    again = avsnn("prepare", "demo", "--limit", "1", "--root", tiny_disk, "--dry-run")
    assert again.returncode == 0


def test_a_disk_that_is_too_small_is_said_before_the_work_starts(
    avsnn: Command, tiny_disk: Path, own: OwnDataset
) -> None:
    for row in own.rows:
        row["audio_bytes"] = row["visual_bytes"] = "1000000000"
    own.write()
    done = avsnn("prepare", "own", "--root", tiny_disk, *ALONE)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert re.search(r"own: about 1\d\d\.\d GB are needed in .*, 0\.0 GB are free", sentence)


def test_a_disk_that_fills_up_in_training_ends_with_one_sentence(
    avsnn: Command, small_demo: Path, tiny_disk: Path
) -> None:
    words = ["--set", "model.channels=64", "--set", "epochs=1", "--set", "batch_size=16"]
    done = avsnn("train", "demo", "--root", small_demo, "--run", tiny_disk / "r", *words)
    assert done.returncode == 1
    # The thread of the TensorBoard writer prints other lines when the thread meets the full disk.
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("avsnn: ")]
    assert "is full" in sentence
    assert not list((tiny_disk / "r" / "checkpoints").glob("resume*"))


def test_silent_layers_are_named_and_the_healthy_preset_has_none(
    avsnn: Command, small_demo: Path
) -> None:
    words = ["train", "demo", "--root", small_demo, "--set", "epochs=1", "--set", "batch_size=16"]
    published = avsnn(*words, "--run", "published").stderr
    assert re.search(r"silent all epoch: \d+ of 22 .*fusion.audio_alignment", published)
    words += ["--preset", "healthy", "--set", "model.channels=64"]
    healthy = avsnn(*words, "--run", "healthy")
    assert (healthy.returncode, "silent" in healthy.stderr) == (0, False), healthy.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("", "prepare", "verify", "repair", "clean", "train", "evaluate", "reproduce"),
        *("datasets", "datasets check", "inspect", "status", "convert-checkpoint"),
        *("presets", "presets show"),
    ],
)
def test_help_explains_every_command(avsnn: Command, command: str) -> None:
    done = avsnn(*command.split(), "--help")
    assert done.returncode == 0
    assert "Usage: avsnn" in done.stdout


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        *((["help"], "prepare demo"), (["help", "train"], "--save-every"), (["-V"], "avsnn 0.")),
        *((["version"], "avsnn 0."), (["help", "datasets", "check"], "--split")),
    ],
)
def test_help_and_version_may_be_typed_as_words(
    avsnn: Command, words: list[str], shown: str
) -> None:
    done = avsnn(*words)
    assert done.returncode == 0
    assert shown in done.stdout


def test_mistakes_are_answered_in_the_same_words_under_another_name_of_the_program(
    avsnn_path: str,
) -> None:
    python = Path(avsnn_path).with_name("python")
    for words in (["tset"], ["status", "--jsn"]):
        asked = [[avsnn_path, *words], [python, "-m", "avsnn", *words]]
        answers = [
            subprocess.run(words, capture_output=True, text=True, check=False).stderr
            for words in asked
        ]
        assert answers[0] == answers[1]
        assert "did you mean" in answers[0]


def test_the_help_of_no_command_imports_a_large_library(avsnn_path: str) -> None:
    # Typer itself needs pydantic, but the settings of avsnn are not made for a help.
    program = (
        "import sys, typer.main\n"
        "from avsnn.cli.main import app\n"
        "def show_help(command, words):\n"
        "    app([*words, '--help'], standalone_mode=False)\n"
        "    for name, inner in getattr(command, 'commands', {}).items():\n"
        "        show_help(inner, [*words, name])\n"
        "show_help(typer.main.get_command(app), [])\n"
        "heavy = {'torch', 'numpy', 'zarr', 'distributed', 'cv2', 'librosa', 'av',\n"
        "         'scipy', 'sklearn', 'matplotlib', 'h5py', 'yaml', 'avsnn.pydantic_base'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    python = Path(avsnn_path).with_name("python")
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("Usage:") > 10
    assert done.stdout.splitlines()[-1] == "[]"


def test_dry_run_says_what_would_be_done_and_does_nothing(avsnn: Command, tmp_path: Path) -> None:
    done = avsnn("prepare", "av-digits", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "6,000" in done.stdout
    assert "22.0 MB to fetch" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_datasets_and_status_show_what_is_prepared(avsnn: Command, small_demo: Path) -> None:
    root = ("--root", small_demo)
    shown = json.loads(avsnn("datasets", *root, "--json").stdout)
    prepared = {row["name"]: row["prepared_clips"] for row in shown}
    assert prepared == dict.fromkeys(names(), 0) | {"demo": 72}
    stages = json.loads(avsnn("status", *root, "--json").stdout)["stages"]
    assert [row["stage"] for row in stages] == ["fetch", "index", "extract", "frames", "audio"]
    assert all(row["done"] == row["units"] > 0 for row in stages)
    assert "CC BY-SA 4.0" in avsnn("datasets").stdout
    assert "14 of 14" in avsnn("status", *root).stdout


def test_a_terminal_gets_a_bar_with_rate_and_time_left(avsnn_path: str, tmp_path: Path) -> None:
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [avsnn_path, "prepare", "demo", "--limit", "30", "--workers", "0", *SMALL_SHARDS],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=secondary,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(secondary)
    output = b""
    while True:
        try:
            output += os.read(primary, 65536)
        except OSError:
            break
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())
    assert re.search(r"fetch .*60/60 units +[\d.,]+/s", text), text
    assert re.search(r"\d+:\d\d:\d\d", text)


def test_training_and_evaluation_write_all_that_a_repetition_needs(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    words = ["--set", "model.channels=16", "--set", "epochs=2", "--set", "batch_size=16"]
    trained = avsnn("train", "demo", "--root", small_demo, "--run", "r", *words)
    assert trained.returncode == 0, trained.stderr
    config = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())
    assert config["settings"]["model"]["channels"] == 16
    assert config["settings"]["optimizer"]["weight_decay"] == 1e-4
    assert config["made_with"]["command"].startswith("avsnn train demo")
    assert list((tmp_path / "r" / "tensorboard").iterdir())
    first = avsnn("evaluate", "r", "--json")
    result = json.loads(first.stdout)
    assert result["clips"] == sum(map(sum, result["confusion"])) == 18
    correct = sum(row[i] for i, row in enumerate(result["confusion"]))
    assert result["top1"] == pytest.approx(correct / 18)
    assert result["top5"] >= result["top1"]
    again = avsnn("evaluate", "r", "--json")
    assert again.stdout == first.stdout
    (tmp_path / "r" / "report" / "test.json").unlink()
    assert avsnn("evaluate", "r", "--json").stdout == first.stdout
    page = (tmp_path / "r" / "report" / "report.html").read_text()
    assert f"{100 * result['top1']:.1f} %" in page


def test_the_part_to_evaluate_on_is_named_by_part_or_by_the_former_name_split(
    avsnn: Command, small_demo: Path
) -> None:
    words = ["--set", "model.channels=16", "--set", "epochs=1", "--set", "batch_size=16"]
    trained = avsnn("train", "demo", "--root", small_demo, "--run", "r", *words)
    assert trained.returncode == 0, trained.stderr
    by_part = avsnn("evaluate", "r", "--part", "train", "--json")
    assert json.loads(by_part.stdout)["part"] == "train"
    assert avsnn("evaluate", "r", "--split", "train", "--json").stdout == by_part.stdout
    assert json.loads(avsnn("evaluate", "r", "--json").stdout)["part"] == "test"
    shown = avsnn("evaluate", "--help").stdout
    assert "--part" in shown
    assert "--split" not in shown


def test_evaluating_on_data_with_other_content_than_in_training_is_refused(
    avsnn: Command, tmp_path: Path
) -> None:
    assert avsnn("prepare", "demo", "--limit", "60", *ALONE).returncode == 0
    words = ["--set", "model.channels=16", "--set", "epochs=1", "--set", "batch_size=16"]
    assert avsnn("train", "demo", "--run", "r", *words).returncode == 0
    assert avsnn("prepare", "demo", "--limit", "66", *ALONE).returncode == 0
    done = avsnn("evaluate", "r")
    assert done.returncode == 2
    assert "avsnn: r: demo in " in done.stderr
    assert "is not what this run was trained on" in done.stderr
    assert "(limit was 60, is 66)" in done.stderr
    assert "Train again, or run 'avsnn prepare demo --limit 60'.\n" in done.stderr
