"""``config.yaml`` of a run folder: what is said where there is none."""

from pathlib import Path

import pytest

from avsnn.errors import UserError
from avsnn.pipeline.runs.config import make_config, read_config, require_same, save_config
from avsnn.pipeline.runs.train_settings import TrainSettings


def test_a_folder_that_is_no_run_is_not_proposed_as_a_run(tmp_path: Path) -> None:
    (tmp_path / "first" / "config.yaml").mkdir(parents=True)
    with pytest.raises(UserError, match=r"it has no config\.yaml; 'avsnn train' makes a run\."):
        read_config(tmp_path / "first")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "config.yaml").touch()
    with pytest.raises(UserError, match=r"there are: .*second"):
        read_config(tmp_path / "first")


def test_a_file_of_a_run_names_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=f"it is a file; did you mean {tmp_path}\\?$"):
        read_config(tmp_path / "config.yaml")


def test_a_run_of_an_earlier_version_with_the_same_settings_is_called_so(
    small_demo: Path, tmp_path: Path
) -> None:
    config = make_config("demo", TrainSettings(), root=small_demo)
    save_config(tmp_path, config.model_copy(update={"fingerprint": "0" * 64}))
    with pytest.raises(
        UserError, match=r"another run \(an earlier version of avsnn or of a plugin"
    ):
        require_same(config, tmp_path)
