"""A run of a plugin remembers its plugin, and no command runs what lies in a run folder."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import Command
from tests.plugin_file import write_plugin
from tests.warm import Warm

WORDS = ["--set", "model.channels=16", "--set", "epochs=1", "--set", "batch_size=16"]
WORDS += ["--set", "data.size=32", "--set", "model.method=mean-exchange", "--run", "r"]


@pytest.fixture(scope="module")
def trained(warm: Warm, small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a plugin and of the run ``r``, whose batches another process read."""
    folder = tmp_path_factory.mktemp("plugin")
    write_plugin(folder / "my_fusion.py")
    words = [*WORDS, "--root", str(small_demo), "--plugin", "my_fusion.py", "--workers", "1"]
    done = warm.run(["train", "demo", *words], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("next: avsnn evaluate r --plugin my_fusion.py\n")
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, in a folder with its plugin."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "r"


def test_a_run_names_its_plugin_and_runs_no_code_of_its_folder(
    avsnn: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["evaluate", "r"], ["export", "r", "--format", "onnx"], ["predict", "r", "r"]):
        done = avsnn(*words)
        assert done.returncode == 2
        assert done.stderr.startswith(
            "avsnn: r was trained with the method 'mean-exchange' of the plugin my_fusion.py: add "
            "--plugin my_fusion.py to the command"
        )
        assert "read r/plugin.py, then give --plugin r/plugin.py." in done.stderr
    settings = ["train", "demo", "--config", "r/config.yaml", "--print-config"]
    assert "of the plugin my_fusion.py: add --plugin my_fusion.py" in avsnn(*settings).stderr
    monkeypatch.setenv("AVSNN_PLUGIN", "my_fusion.py")
    assert yaml.safe_load(avsnn(*settings).stdout)["model"]["method"] == "mean-exchange"
    done = avsnn("evaluate", "r", "--json")
    assert done.returncode == 0, done.stderr
    assert '"method": "mean-exchange"' in done.stdout


def test_another_content_of_the_plugin_is_another_run(
    avsnn: Command, run: Path, small_demo: Path, tmp_path: Path
) -> None:
    with (tmp_path / "my_fusion.py").open("a") as file:
        file.write("# a remark\n")
    again = ["train", "demo", *WORDS, "--root", small_demo, "--plugin", "my_fusion.py", "--resume"]
    resumed = avsnn(*again)
    assert resumed.returncode == 2
    assert resumed.stderr == (
        "avsnn: r holds another run (the plugin my_fusion.py has another content than the run was "
        "started with); choose another --run.\n"
    )
    changed = avsnn("evaluate", "r", "--plugin", "my_fusion.py")
    assert changed.returncode == 2
    assert "avsnn: r was trained with another content of my_fusion.py than my_" in changed.stderr
    # The name of the file is not part of the run: the copy has the content of the training.
    assert avsnn("evaluate", "r", "--plugin", "r/plugin.py").returncode == 0
    # What is recorded needs no network.
    assert avsnn("evaluate", "r", "--plugin", "my_fusion.py").returncode == 0


def test_options_of_a_method_are_settings_of_the_run(
    avsnn: Command, run: Path, small_demo: Path
) -> None:
    words = ["train", "demo", *WORDS, "--root", small_demo, "--plugin", "my_fusion.py"]
    for key in ("custom", "options"):
        other = avsnn(*words, "--set", f"model.{key}.start=0.5")
        assert other.returncode == 2
        assert other.stderr == (
            "avsnn: r holds another run (model.custom.start 0.0 there, 0.5 here); choose another "
            "--run.\n"
        )
    for setting, sentence in {
        "model.custom.strat=1": "there is no setting model.custom.strat (value 1); did you mean "
        "model.custom.start? there are: model.custom.start.",
        "model.custom.start=fast": "setting model.custom.start cannot be 'fast': the value must be "
        "a number.",
    }.items():
        wrong = avsnn(*words[:-1], "r/plugin.py", "--set", setting, "--run", "s")
        assert (wrong.returncode, wrong.stderr) == (2, f"avsnn: {sentence}\n")
    shown = avsnn(*words, "--set", "model.options.start=1e-3", "--print-config").stdout
    assert yaml.safe_load(shown)["model"]["custom"] == {"start": 0.001}
    values = yaml.safe_load((run / "config.yaml").read_text())
    assert values["settings"]["model"]["custom"] == {"start": 0.0}
    record = values["plugins"]["model.method"]
    digest = hashlib.sha256((run / "plugin.py").read_bytes()).hexdigest()
    assert record == {"kind": "file", "name": "my_fusion.py", "sha256": digest, "version": None}


def test_a_run_of_an_earlier_version_names_its_plugin_and_answers(
    avsnn: Command, run: Path
) -> None:
    path = run / "config.yaml"
    values = yaml.safe_load(path.read_text())
    record = values.pop("plugins")["model.method"]
    values["plugin"] = {key: record[key] for key in ("name", "sha256")}
    values["settings"]["model"]["options"] = values["settings"]["model"].pop("custom")
    path.write_text(yaml.safe_dump(values))
    assert "my_fusion.py: add --plugin my_fusion.py to" in avsnn("evaluate", "r").stderr
    done = avsnn("evaluate", "r", "--plugin", "my_fusion.py", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(avsnn("status", "--runs", ".", "--json").stdout)["runs"][0]["unreadable"] == (
        "its settings are not checked: the method mean-exchange is of the plugin my_fusion.py, "
        "which status does not run."
    )


def test_a_hostile_record_of_a_plugin_is_refused_as_a_record(avsnn: Command, run: Path) -> None:
    path = run / "config.yaml"
    values = yaml.safe_load(path.read_text())
    record, evil = {"name": "x" * 10_000, "sha256": "; rm -rf ~"}, {"name": "x" * 10_000}
    plugins = values.pop("plugins")
    assert plugins.keys() == {"model.method"}
    for hostile in (
        {"plugin": record},
        {"plugins": {"model.method": record, 3: evil}},
        {"plugins": {"model.method": {**record, "kind": "package", "version": "1; rm -rf ~"}}},
        {"plugins": [record]},
    ):
        path.write_text(yaml.safe_dump(values | hostile))
        done = avsnn("evaluate", "r")
        assert done.returncode == 2
        assert "which is no method of this version of avsnn; there are: s-cmrl" in done.stderr
        assert "xxx" not in done.stderr
