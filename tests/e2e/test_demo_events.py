"""demo-events by the command: kill, verify, repair, and training from caches and from shards."""

import json
from pathlib import Path

import pytest

from tests.conftest import ALONE, SMALL_SHARDS, Command, flip_a_bit, hashes
from tests.e2e.test_kill import kill_when_it_says
from tests.warm import Warm

PREPARE = ("prepare", "demo-events", "--limit", "36", "--set", "events.steps=4", *SMALL_SHARDS)
SMALL = ("--set", "model.channels=16", "--set", "model.steps=4", "--set", "batch_size=8")
TRAIN = ("train", "demo-events", *SMALL, "--set", "epochs=1")


@pytest.fixture(scope="module")
def prepared(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 36 prepared clips of demo-events below ``data``; tests must only read it."""
    folder = tmp_path_factory.mktemp("events")
    done = warm.run([*PREPARE, *ALONE], folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("sentence", "workers"),
    [("fetch: 36 of 72", "0"), ("extract: 3 of", "2"), ("frames: 1 of 2", "0")],
)
def test_a_killed_prepare_of_events_finishes_with_the_same_bytes(
    avsnn: Command, warm: Warm, prepared: Path, tmp_path: Path, sentence: str, workers: str
) -> None:
    kill_when_it_says(warm, [*PREPARE, "--workers", workers], sentence, tmp_path)
    assert avsnn(*PREPARE, *ALONE).returncode == 0
    assert hashes(tmp_path / "data") == hashes(prepared / "data")
    assert "nothing to do" in avsnn(*PREPARE, *ALONE).stdout


def test_damaged_events_are_found_and_repaired(
    avsnn: Command, prepared: Path, tmp_path: Path
) -> None:
    assert avsnn(*PREPARE, *ALONE).returncode == 0
    folder = tmp_path / "data" / "demo-events"
    facts = json.loads((folder / "prepared.json").read_text())
    damaged = [
        next((folder / "raw").rglob("*.aedat")),
        next((folder / "raw").rglob("*.hdf5")),
        next((folder / facts["shards"]).glob("*.tar")),
        next((folder / facts["frames"] / "frames" / "c").rglob("0/0")),
    ]
    for path in damaged:
        flip_a_bit(next(p for p in (path, *path.rglob("*")) if p.is_file()))
    found = avsnn("verify", "demo-events", "--json")
    assert found.returncode == 1
    assert all(path.name in found.stdout for path in damaged[:3])
    assert avsnn("repair", "demo-events", *ALONE).returncode == 0
    assert avsnn("verify", "demo-events").returncode == 0
    assert hashes(tmp_path / "data") == hashes(prepared / "data")


def test_shards_and_caches_of_events_train_the_same_network(
    avsnn: Command, prepared: Path, tmp_path: Path
) -> None:
    root = ("--root", prepared / "data", "--run")
    assert avsnn(*TRAIN, *root, "caches").returncode == 0
    done = avsnn(*TRAIN, *root, "shards", "--read", "shards")
    assert done.returncode == 0, done.stderr
    weights = [
        (tmp_path / run / "checkpoints" / "last.safetensors").read_bytes()
        for run in ("caches", "shards")
    ]
    assert weights[0] == weights[1]
    evaluated = avsnn("evaluate", "caches")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "top-1" in evaluated.stdout


def test_caches_of_several_numbers_of_steps_live_side_by_side(
    avsnn: Command, prepared: Path, tmp_path: Path
) -> None:
    more = avsnn(*PREPARE, "--set", "events.steps=6", "--set", "events.crop=32", *ALONE)
    assert more.returncode == 0, more.stderr
    caches = tmp_path / "data" / "demo-events" / "cache"
    assert avsnn(*PREPARE, *ALONE).returncode == 0
    assert len([*caches.iterdir()]) == 4
    wrong = avsnn(*TRAIN, "--set", "model.steps=6")
    assert wrong.returncode == 2
    assert "--set model.steps=4" in wrong.stderr
    assert "events.steps=6" in wrong.stderr
