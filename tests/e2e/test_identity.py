"""Corrections of a table, of splits and of classes reach prepare, train and evaluate."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.pipeline.formats.prepared_json import LAYOUT
from tests.conftest import ALONE, ONE_SMALL_EPOCH, SMALL_SHARDS, Command, hashes
from tests.own_dataset import (
    EDITS,
    Edit,
    OwnDataset,
    current_files,
    other_default_split,
    prepared_index,
    repart,
)
from tests.warm import Warm

TRAIN = ["train", "own", "--run", "r", "--preset", "demo", "--device", "cpu"]
TRAIN += ["--set", "model.channels=16", "--set", "data.size=32", "--set", "epochs=1"]
TRAIN += ["--set", "batch_size=8"]
TRAIN_ON_SPEAKERS = [*TRAIN, "--set", "data.split=speaker"]


@pytest.fixture(scope="module")
def evaluated(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prepared data set of a user, and a run that was trained and evaluated."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "datasets").mkdir()
    OwnDataset(folder / "datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(USER_FOLDER_VARIABLE, str(folder / "datasets"))
        for words in (["prepare", "own", *ALONE], TRAIN_ON_SPEAKERS, ["evaluate", "r"]):
            done = warm.run(words, folder)
            assert done.returncode == 0, done.stderr
    return folder


def prepare(avsnn: Command, *words: str) -> str:
    done = avsnn("prepare", "own", *ALONE, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("edit", EDITS)
def test_a_correction_is_prepared_as_afresh_and_stops_a_run_that_it_concerns(
    avsnn: Command, evaluated: Path, own: OwnDataset, tmp_path: Path, edit: Edit
) -> None:
    for name in ("data", "r"):
        shutil.copytree(evaluated / name, tmp_path / name)
    corrected, fresh = tmp_path / "data" / "own", tmp_path / "fresh" / "own"
    before = prepared_index(corrected)
    edit(own)
    own.write()
    assert "nothing to do" not in prepare(avsnn)
    prepare(avsnn, "--root", "fresh", "--source", str(corrected / "raw"))
    assert prepared_index(corrected) == prepared_index(fresh)
    assert current_files(corrected) == current_files(fresh)
    if edit in (repart, other_default_split):
        # These edits change no fact of a run on the split `speaker`.
        return
    assert prepared_index(corrected) != before
    again = avsnn(*TRAIN_ON_SPEAKERS)
    assert again.returncode == 2, again.stdout
    assert "holds another run" in again.stderr
    measured = avsnn("evaluate", "r", "--root", "data")
    assert measured.returncode == 2, measured.stdout
    assert "than this run was trained on" in measured.stderr or "is not what" in measured.stderr


def test_a_prepare_killed_with_another_limit_leaves_the_finished_one_usable(
    avsnn: Command, warm: Warm, own: OwnDataset, tmp_path: Path
) -> None:
    prepare(avsnn, "--limit", "24")
    finished = current_files(tmp_path / "data" / "own")
    process = warm.start(["prepare", "own", "--limit", "30", *ALONE], tmp_path)
    for line in process.stderr:
        if line.startswith("extract: 1 of"):
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert current_files(tmp_path / "data" / "own") == finished
    trained = avsnn(*TRAIN, "--set", "selection=last")
    assert trained.returncode == 0, trained.stderr
    assert "nothing to do" in prepare(avsnn, "--limit", "24")


def test_the_finished_prepare_is_verified_after_another_one_was_interrupted(
    avsnn: Command, warm: Warm, own: OwnDataset, tmp_path: Path
) -> None:
    prepare(avsnn, "--limit", "24")
    finished = current_files(tmp_path / "data" / "own")
    other = ["prepare", "own", "--limit", "24", "--set", "audio.size=64", *ALONE]
    process = warm.start(other, tmp_path)
    for line in process.stderr:
        if line.startswith("audio: 1 of"):
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    (tmp_path / "data" / "own" / "prepared.json").write_bytes(b"")
    assert avsnn("verify", "own").returncode == 1
    prepare(avsnn, "--limit", "24")
    assert current_files(tmp_path / "data" / "own") == finished
    verified = avsnn("verify", "own")
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("name", ["prepared.json", "state/request.json", "state/snapshot.txt"])
@pytest.mark.parametrize("content", [b"", b"\xff"])
def test_a_damaged_file_of_prepare_is_written_again_by_prepare(
    avsnn: Command, small_demo: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    shutil.copytree(small_demo, tmp_path / "data")
    finished = hashes(tmp_path / "data" / "demo")
    (tmp_path / "data" / "demo" / name).write_bytes(content)
    done = avsnn("prepare", "demo", "--limit", "72", *SMALL_SHARDS, *ALONE)
    assert done.returncode == 0, done.stderr
    assert hashes(tmp_path / "data" / "demo") == finished
    assert avsnn("verify", "demo").returncode == 0


def test_data_of_an_older_layout_are_prepared_again(
    avsnn: Command, small_demo: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_demo, tmp_path / "data")
    path = tmp_path / "data" / "demo" / "prepared.json"
    facts = json.loads(path.read_text())
    del facts["layout"]
    path.write_text(json.dumps(facts))
    done = avsnn("train", "demo", *ONE_SMALL_EPOCH)
    assert done.returncode == 2
    assert "with another layout of files; run 'avsnn prepare demo" in done.stderr
    assert avsnn("prepare", "demo", "--limit", "72", *SMALL_SHARDS, *ALONE).returncode == 0
    assert json.loads(path.read_text())["layout"] == LAYOUT
