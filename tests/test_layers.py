"""The layers of the house: what may import what, as pyproject.toml states it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of a project folder."""
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [command, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_every_import_keeps_to_the_layers() -> None:
    checked = lint_imports(PROJECT)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("pipeline/media/errors.py", "import avsnn.pipeline.media.audio", "No circle"),
        (
            "models/neuron_constants.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import avsnn.models.neuron",
            "No circle",
        ),
        (
            "pipeline/prepare/estimate.py",
            "def later():\n    import avsnn.pipeline.prepare.prepare",
            "No circle",
        ),
        ("models/losses.py", "import avsnn.pipeline.settings_overrides", "The four rooms"),
        ("pipeline/training/train.py", "import avsnn.pipeline.evaluation.report", "The flow"),
        ("models/neuron.py", "import yaml", "no input or output"),
        ("datasets_manifest/schema.py", "import avsnn.models.zoo", "The four rooms"),
    ],
)
def test_an_import_against_the_layers_is_refused(
    tmp_path: Path, module: str, statement: str, contract: str
) -> None:
    shutil.copytree(PROJECT / "avsnn", tmp_path / "avsnn")
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    with (tmp_path / "avsnn" / module).open("a") as file:
        file.write(f"\n{statement}\n")
    checked = lint_imports(tmp_path)
    broken = [line for line in checked.stdout.splitlines() if "BROKEN" in line]
    assert checked.returncode == 1
    assert any(contract in line for line in broken), checked.stdout
