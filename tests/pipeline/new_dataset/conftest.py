"""What the tests of new data sets share: a folder of clips, and a folder for YAML files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.new_dataset.groups import GroupGuess
from avsnn.pipeline.new_dataset.new_dataset import NewDataset, new_dataset

New = Callable[..., NewDataset]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """The folder of the clips; empty so far."""
    folder = tmp_path / "My clips"
    folder.mkdir()
    return folder


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> New:
    """A function that does what ``avsnn datasets new`` does without a terminal."""
    monkeypatch.setenv("AVSNN_DATASETS", str(tmp_path / "sets"))

    def take(_: GroupGuess) -> str:
        return ""

    def run(folder: Path, **options: object) -> NewDataset:
        chosen = {"name": None, "group": None, "take": None, "ask": take} | options
        return new_dataset(folder, progress=NoProgress(), **chosen)  # type: ignore[arg-type]

    return run
