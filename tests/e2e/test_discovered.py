"""Prepares UrbanSound8K-AV with the command; this data set was published without a table."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import Command, hashes, write_city_sounds

NAME = "urbansound8k-av"


def failures(folder: Path) -> dict[str, str]:
    text = (folder / "data" / NAME / "failures.jsonl").read_text()
    return {row["path"]: row["reason"] for row in map(json.loads, text.splitlines())}


def test_folders_without_a_table_are_prepared_and_files_of_no_clip_are_named(
    avsnn: Command, tmp_path: Path
) -> None:
    tree = write_city_sounds(tmp_path / "download" / "top", recordings=4, slices=1)
    (tree / "Dataset_v3_vision" / "siren" / ".DS_Store").touch()
    orphan = "Dataset_v3_sound/siren/7-8-0-0.wav"
    (tree / orphan).touch()
    prepare = ["prepare", NAME, "--max-failures", "0.02", "--workers", "0"]
    words = [*prepare, "--source", "download"]
    planned = avsnn(*words, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "files of unknown size" in planned.stdout
    assert not (tmp_path / "data").exists()
    done = avsnn(*words)
    assert done.returncode == 0, done.stderr
    assert "40 clips are ready" in done.stdout
    assert failures(tmp_path) == {orphan: "has no image"}
    ignored = tmp_path / "data" / NAME / "table" / "ignored.txt"
    assert ignored.read_text() == "Dataset_v3_vision/siren/.DS_Store\n"
    before = hashes(tmp_path / "data" / NAME)
    assert "nothing to do" in avsnn(*words).stdout
    shutil.rmtree(tmp_path / "download")
    assert "nothing to do" in avsnn(*prepare).stdout
    assert hashes(tmp_path / "data" / NAME) == before
    checked = json.loads(avsnn("datasets", "check", NAME, "--split", "recording", "--json").stdout)
    assert [row["groups"] for row in checked["shared"]] == [0, 0]
    assert checked["prepared"] == {part: sum(n.values()) for part, n in checked["clips"].items()}
    assert checked["disagreeing"] == 0
    listed = json.loads(avsnn("datasets", "--json").stdout)
    assert {row["name"]: row["prepared_clips"] for row in listed}[NAME] == 40


@pytest.mark.skipif(find_spec("kagglehub") is not None, reason="kagglehub is installed here")
def test_without_kagglehub_one_sentence_says_what_to_install(avsnn: Command) -> None:
    done = avsnn("prepare", NAME)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"avsnn: lingyueguo/{NAME} is downloaded from Kaggle")
    assert done.stderr.count("\n") == 1
    assert "run 'pip install kagglehub'" in done.stderr
    assert "--source" in done.stderr
