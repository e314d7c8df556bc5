"""What several tests of the installed command start from."""

from pathlib import Path

import pytest

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from tests.own_dataset import OwnDataset


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnDataset:
    """A small data set of a user, which the commands of the test find under the name ``own``."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(folder))
    return OwnDataset(folder)
