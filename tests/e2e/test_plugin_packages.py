"""An installed package gives methods and surrogates; each command says what is missing without it.

The commands run in forks of a process that has not yet read what packages offer.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import Command
from tests.plugin_file import line_of, write_plugin
from tests.plugin_package import search_path, write_package
from tests.warm import Warm

MODEL = ["--set", "model.channels=16", "--set", "model.method=mean-exchange"]
SIZES = ["--set", "epochs=1", "--set", "batch_size=16", "--set", "data.size=32"]
CHOICE = ["--set", "model.surrogate=triangle", "--set", "model.custom.start=0.1"]
CHOICE += ["--set", "balance.strategy=catch-up"]


def python(folder: Path, packages: Path | None, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with packages or without."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": search_path(packages), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def command(
    warm: Warm, folder: Path, packages: Path | None, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run ``avsnn`` in a folder, with packages or without."""
    done = warm.run([*words], folder, PYTHONPATH=search_path(packages), COLUMNS="200")
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def trained(warm: Warm, small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, in ``site``, and a run ``r`` of its method and its surrogate."""
    folder = tmp_path_factory.mktemp("package")
    write_package(folder / "site")
    words = [*MODEL, *SIZES, *CHOICE, "--root", str(small_demo), "--run", "r", "--workers", "1"]
    done = command(warm, folder, folder / "site", "train", "demo", *words)
    assert done.returncode == 0, done.stderr
    slower = "neurons run on plain torch, which is slower"
    assert done.stderr.count(slower) == 1
    assert done.stdout.endswith("next: avsnn evaluate r\n")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run and of the packages."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_run_of_a_package_works_with_the_package_and_names_what_is_missing_without_it(
    warm: Warm, avsnn: Command, folder: Path, small_demo: Path
) -> None:
    site, root = folder / "site", ["--root", str(small_demo)]
    values = yaml.safe_load((folder / "r" / "config.yaml").read_text())
    package = {"kind": "package", "name": "spike-mix", "version": "1.2", "sha256": None}
    settings = ("model.method", "model.surrogate", "balance.strategy")
    assert values["plugins"] == dict.fromkeys(settings, package)
    assert values["settings"]["model"]["custom"] == {"start": 0.1}
    assert not [*(folder / "r").glob("plugin*")]

    again = ["train", "demo", *MODEL, *SIZES, *CHOICE, *root, "--run", "r", "--resume"]
    resumed = command(warm, folder, site, *again)
    assert resumed.stdout.startswith("r: nothing to do; this run was finished before."), resumed
    done = command(warm, folder, site, "evaluate", "r", "--json", *root)
    assert done.returncode == 0, done.stderr
    page = (folder / "r" / "report" / "report.html").read_text()
    assert "spike-mix==1.2" in page
    assert ", balanced by catch-up, seed 42, epoch" in page
    exported = command(warm, folder, site, "export", "r", "--format", "safetensors").stdout
    assert exported.count("Install the package before avsnn loads the network") == 2
    assert "strategy catch-up of the package spike-mix 1.2 changed the training; the" in exported

    needs = (
        "needs the method 'mean-exchange' of the package spike-mix 1.2, which is not installed: "
        "pip install spike-mix==1.2\n"
    )
    for words in (["evaluate", "r"], ["export", "r", "--format", "onnx"], ["predict", "r", "r"]):
        done = avsnn(*words)
        assert (done.returncode, done.stderr) == (2, f"avsnn: r {needs}")
    done = avsnn("train", "demo", "--config", "r/config.yaml", *root)
    assert (done.returncode, done.stderr) == (2, f"avsnn: r {needs}")
    done = avsnn(*again)
    assert (done.returncode, done.stderr) == (2, f"avsnn: r {needs}")
    done = avsnn(*again[:-1])
    assert done.returncode == 2
    assert "setting model.method cannot be 'mean-exchange': there is no method" in done.stderr
    loaded = python(folder, None, "-c", "import avsnn; avsnn.load('r')")
    assert f"UserError: r {needs}" in loaded.stderr


def test_status_lists_the_run_and_imports_no_package(warm: Warm, folder: Path) -> None:
    (folder / "site" / "spike_mix" / "__init__.py").write_text("raise SystemExit(9)\n")
    for packages in (folder / "site", None):
        done = command(warm, folder, packages, "status", "--runs", ".", "--json")
        (row,) = json.loads(done.stdout)["runs"]
        assert (row["method"], row["state"], row["epochs"]) == ("mean-exchange", "finished", 1)
        assert row["unreadable"] == (
            "its settings are not checked: the method mean-exchange is of the package spike-mix "
            "1.2, which status does not run."
        )


def test_another_version_of_the_package_is_a_warning_and_another_content_no_other_run(
    warm: Warm, folder: Path, small_demo: Path
) -> None:
    shutil.rmtree(folder / "site")
    write_package(folder / "site", version="1.3")
    warning = (
        "r was trained with the package spike-mix 1.2, and 1.3 is installed: its results may "
        "differ; 'pip install spike-mix==1.2' restores the version.\n"
    )
    done = command(warm, folder, folder / "site", "evaluate", "r", "--root", str(small_demo))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(warning) == 1
    words = [*MODEL, *SIZES, *CHOICE, "--root", str(small_demo), "--run", "r", "--resume"]
    resumed = command(warm, folder, folder / "site", "train", "demo", *words)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count(warning) == 1

    write_package(folder / "site", version="1.3", methods="")
    done = command(warm, folder, folder / "site", "evaluate", "r")
    assert (done.returncode, done.stderr) == (
        2,
        "avsnn: r needs the method 'mean-exchange' of the package spike-mix 1.2, and the installed "
        "version 1.3 has no such method: pip install spike-mix==1.2\n",
    )


def test_a_file_with_the_name_of_the_method_of_a_package_does_not_get_its_weights(
    warm: Warm, folder: Path, small_demo: Path
) -> None:
    write_plugin(folder / "my_fusion.py")
    words = ["evaluate", "r", "--plugin", "my_fusion.py", "--root", str(small_demo)]
    done = command(warm, folder, folder / "site", *words)
    assert (done.returncode, done.stderr) == (
        2,
        "avsnn: r was trained with the method 'mean-exchange' of the package spike-mix 1.2, and "
        "my_fusion.py has another method of this name: install its package (pip install "
        "spike-mix==1.2) and leave out --plugin my_fusion.py.\n",
    )


def test_an_exception_in_the_code_of_a_package_is_one_sentence_with_its_line(
    warm: Warm, folder: Path, small_demo: Path
) -> None:
    path = folder / "site" / "spike_mix" / "__init__.py"
    path.write_text(path.read_text().replace("clamp(min=0.0)", "clamp(0.0, 1.0, 2.0)"))
    words = ["train", "demo", *MODEL, *SIZES, *CHOICE, "--root", str(small_demo), "--run", "s"]
    done = command(warm, folder, folder / "site", *words)
    assert done.returncode == 2
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith(f"avsnn: {path}, line {line_of(path, 'clamp(')}: TypeError: clamp()")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import numpi\n", "ModuleNotFoundError: No module named 'numpi'"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        (
            "METHOD = 3\n",
            "the method 'mean-exchange' must be TwoStreams(CLASS), with TwoStreams",
        ),
        ("", "AttributeError: module 'spike_mix' has no attribute 'METHOD'"),
    ],
)
def test_a_package_with_a_fault_hides_nothing_and_is_named_when_it_is_asked_for(
    warm: Warm, tmp_path: Path, code: str, reason: str
) -> None:
    write_package(tmp_path, code=code)
    done = command(warm, tmp_path, tmp_path, "train", "demo", "--print-config", *MODEL)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "avsnn: setting model.method cannot be 'mean-exchange': the package spike-mix 1.2 offers "
        f"'mean-exchange' and cannot be used ({reason}"
    )
    assert done.stderr.count("\n") == 1
    other = command(warm, tmp_path, tmp_path, "train", "demo", "--print-config")
    assert (other.returncode, other.stderr) == (0, "")


def test_names_of_packages_are_listed_and_only_the_wanted_package_is_imported(
    warm: Warm,
    tmp_path: Path,
) -> None:
    write_package(tmp_path)
    shout = "print('imported', __name__)\n"
    write_package(tmp_path, "loud", code=shout, methods="add", surrogates="shout")
    words = ["train", "demo", "--print-config", "--set"]
    wrong = command(warm, tmp_path, tmp_path, *words, "model.method=mean-exchang")
    assert wrong.returncode == 2
    assert "did you mean mean-exchange? there are: s-cmrl, add," in wrong.stderr
    assert wrong.stderr.endswith(", taaf, mean-exchange.\n")
    for setting in ("model.method=mean-exchange", "model.surrogate=triangle", "model.method=add"):
        done = command(warm, tmp_path, tmp_path, *words, setting)
        assert (done.returncode, done.stderr) == (0, "")
        assert "imported" not in done.stdout
    for code in (["-m", "avsnn", "train", "--help"], ["-c", "import avsnn.models.zoo"]):
        done = python(tmp_path, tmp_path, "-v", *code)
        assert "import 'avsnn" in done.stderr
        assert "spike_mix" not in done.stderr


def test_two_packages_with_one_name_are_both_named(warm: Warm, tmp_path: Path) -> None:
    write_package(tmp_path)
    write_package(tmp_path, "mixer", "3.0", surrogates="", strategies="")
    done = command(warm, tmp_path, tmp_path, "train", "demo", "--print-config", *MODEL)
    assert done.returncode == 2
    sentence = done.stderr.removeprefix(
        "avsnn: setting model.method cannot be 'mean-exchange': the packages "
    )
    assert sorted(sentence.split(" both")[0].split(" and ")) == ["mixer 3.0", "spike-mix 1.2"]
    assert sentence.endswith(" both offer 'mean-exchange'; remove all but one of them.\n")
    # A file that a person names comes before packages.
    write_plugin(tmp_path / "my_fusion.py")
    words = ["train", "demo", "--print-config", *MODEL, "--plugin", "my_fusion.py"]
    assert command(warm, tmp_path, tmp_path, *words).returncode == 0
