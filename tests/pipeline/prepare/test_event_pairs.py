"""N-MNIST + SHD from servers to an evaluated model; the files are made up, in the true layout."""

import json
from pathlib import Path

import pytest

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from tests.conftest import ALONE, Command
from tests.event_pairs import published_files, write_manifest
from tests.pipeline.transfer.server import Server, cut

STEPS = ("--set", "events.steps=4")


@pytest.fixture
def files(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The published files, served by two mirrors, of which the first one is wrong or is cut."""
    files = published_files()
    for name, content in files.items():
        server.add_file(name, content)
    server.add_file("mirror/Train.zip", files["Train.zip"][:-1] + b"?")
    server.plan_answers("/files/shd_train.h5.zip", cut(after=len(files["shd_train.h5.zip"]) // 2))
    sources = [
        {
            "prefix": "Train.zip",
            "file": server.url("/files/mirror/Train.zip"),
            "insecure": True,
        },
        {"prefix": "", "url": server.url()},
    ]
    write_manifest(tmp_path, files, sources)
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))
    return files


def test_recordings_of_two_servers_become_an_evaluated_model(
    files: dict[str, bytes], server: Server, avsnn: Command, tmp_path: Path
) -> None:
    prepared = avsnn("prepare", "nmnist-shd", *STEPS, *ALONE)
    assert prepared.returncode == 0, prepared.stderr
    assert "200 clips are ready" in prepared.stdout
    (cut_off, rest) = server.requests("/files/shd_train.h5.zip")
    assert rest.headers["Range"] == f"bytes={cut_off.sent}-"
    assert "nothing to do" in avsnn("prepare", "nmnist-shd", *STEPS, *ALONE).stdout
    assert "all as they were written" in avsnn("verify", "nmnist-shd").stdout
    small = ("--set", "model.channels=32", "--set", "model.steps=4", "--set", "batch_size=20")
    short = ("--set", "epochs=8", "--set", "optimizer.base_lr=0.3", "--run", "run")
    trained = avsnn("train", "nmnist-shd", *small, *short)
    assert trained.returncode == 0, trained.stderr
    assert avsnn("evaluate", "run").returncode == 0
    report = json.loads((tmp_path / "run" / "report" / "test.json").read_text())
    assert report["clips"] == 40
    assert report["top1"] > 0.5
