"""What several test files share: the recorded data beside the project, and the command itself."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import settings

from avsnn.datasets_manifest import load
from tests.warm import Warm

PROJECT = Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared"

# A busy machine is no defect.
settings.register_profile("avsnn", deadline=None)
settings.load_profile("avsnn")

Command = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest tests first: at the end, one core would wait for the other."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real small data that stands beside the project where it is developed."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the recorded data in {folder}, which only developers have")
    return folder


@pytest.fixture(scope="session")
def avsnn_path() -> str:
    """The installed command."""
    beside = Path(sys.executable).with_name("avsnn")
    found = str(beside) if beside.exists() else shutil.which("avsnn")
    assert found, "avsnn is not installed; see the README"
    return found


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """A process that commands are forked from."""
    process = Warm()
    yield process
    process.close()


@pytest.fixture
def avsnn(warm: Warm, tmp_path: Path) -> Command:
    """Runs ``avsnn …`` in an empty folder, as a person would, but for the time it takes to start.

    Tests whose point is the start itself, or all processes of a run, start the installed command.
    """

    def run(*words: str | Path, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return warm.run([*map(str, words)], cwd)

    return run


@pytest.fixture(scope="session")
def small_demo(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that holds 72 prepared demo clips, many shards, read by tests and never written."""
    root = tmp_path_factory.mktemp("small") / "data"
    words = ["prepare", "demo", "--limit", "72", "--root", str(root), *SMALL_SHARDS, *ALONE]
    done = warm.run(words, root.parent)
    assert done.returncode == 0, done.stderr
    return root


SMALL_SHARDS = ("--set", "extract.clips_per_shard=8")
# Each worker imports all over again, which takes longer than what it then does here.
ALONE = ("--workers", "0")


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of everything a data set's folder holds, but for the journals and the lock."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "state" not in path.relative_to(folder).parts and path.name != ".lock"
    }


def city_sounds(folder: Path, *, recordings: int, slices: int) -> Path:
    """Small files in the layout of UrbanSound8K-AV; recordings of class c from 1000 + 100 c on."""
    manifest = load("urbansound8k-av")
    assert manifest.layout is not None
    random = np.random.default_rng(0)
    for label, name in enumerate(manifest.classes):
        sound = folder / manifest.layout.audio / name
        sight = folder / manifest.layout.visual / name
        sound.mkdir(parents=True)
        sight.mkdir(parents=True)
        for recording in range(1000 + 100 * label, 1000 + 100 * label + recordings):
            for piece in range(slices):
                stem = f"{recording}-{label}-0-{piece}"
                samples = random.uniform(-0.5, 0.5, (1600 + 100 * piece, 1 + label % 2))
                kind = ("PCM_16", "PCM_24", "FLOAT")[label % 3]
                soundfile.write(sound / f"{stem}.wav", samples, 8000 + 4000 * label, subtype=kind)
                pixels = random.integers(0, 256, (40, 60, 3), np.uint8)
                cv2.imwrite(str(sight / f"{stem}.jpg"), pixels)
    return folder


class NoProgress:
    """Progress nobody looks at."""

    def start(self, title: str, total: int, unit: str) -> None:
        pass

    def advance(self, count: int = 1, note: str = "") -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
