"""Fixtures and helpers that several test files share: recorded data, commands, prepared clips."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

from avsnn.datasets_manifest import load
from tests.s3_server import S3Server, no_fault
from tests.warm import Warm

PROJECT = Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared"

# No deadline: an example that is slow because the machine is busy is no defect.
settings.register_profile("avsnn", deadline=None)
settings.load_profile("avsnn")

Command = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest tests first: at the end, one core would wait for the other."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def _same_draws_every_time() -> None:
    """Seed what a test draws without a generator: its outcome depends on no other test."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _no_data_sets_of_the_developer(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give every command an empty folder of the user's settings, and no folder of data sets.

    Copies of files of a store go to a folder of the tests too.
    """
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))
    os.environ["AVSNN_CACHE_DIR"] = str(tmp_path_factory.mktemp("copies"))
    os.environ.pop("AVSNN_DATASETS", None)


@pytest.fixture(autouse=True)
def _children_find_the_tests() -> Iterator[None]:
    """Forget the variable by which a command keeps the current folder off its children.

    A command sets the variable in its own process, but many tests run in this process.
    """
    yield
    os.environ.pop("PYTHONSAFEPATH", None)


@pytest.fixture
def shared_data() -> Path:
    """The folder of small real data; developers have the folder beside the project."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the recorded data in {folder}, which only developers have")
    return folder


@pytest.fixture
def cases() -> Path:
    """The folder of files made after public bug reports; developers have the folder."""
    folder = SHARED / "cases" / "files"
    if not folder.is_dir():
        pytest.skip(f"needs the files in {folder}, which only developers have")
    return folder


@pytest.fixture(scope="session")
def avsnn_path() -> str:
    """The path of the installed command."""
    beside_python = Path(sys.executable).with_name("avsnn")
    path = str(beside_python) if beside_python.exists() else shutil.which("avsnn")
    assert path, "avsnn is not installed; see the README"
    return path


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """A process that has imported everything; commands are forked from this process."""
    process = Warm()
    yield process
    process.close()


@pytest.fixture
def avsnn(warm: Warm, tmp_path: Path) -> Command:
    """A function that runs ``avsnn …`` in an empty folder, as a person would.

    The command starts faster than the installed command, because the command is a fork of
    :class:`Warm`. Tests that depend on how a process starts, or on all processes of a run, use
    ``avsnn_path`` instead.
    """

    def run(*words: str | Path, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return warm.run([*map(str, words)], cwd)

    return run


@pytest.fixture(scope="session")
def s3_server() -> S3Server:
    """A real S3 server on this machine; commands find the server in the fixture `s3`."""
    return S3Server()


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    """The server with its address and keys in the environment, and without faults."""
    s3_server.fault = no_fault
    s3_server.requests.clear()
    with s3_server.environment():
        yield s3_server


@pytest.fixture(scope="session")
def small_demo(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with 72 prepared demo clips in many shards. Tests must only read this root."""
    root = tmp_path_factory.mktemp("small") / "data"
    words = ["prepare", "demo", "--limit", "72", "--root", str(root), *SMALL_SHARDS, *ALONE]
    done = warm.run(words, root.parent)
    assert done.returncode == 0, done.stderr
    return root


SMALL_SHARDS = ("--set", "extract.clips_per_shard=8")
# No worker processes: a worker would import everything again, which takes longer than its work.
ALONE = ("--workers", "0")


@pytest.fixture(scope="session")
def small_run(small_demo: Path, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on the small demo."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", "demo", "--root", str(small_demo), "--run", str(folder), *ONE_SMALL_EPOCH]
    done = warm.run(words, folder.parent)
    assert done.returncode == 0, done.stderr
    return folder


ONE_SMALL_EPOCH = ("--set", "epochs=1", "--set", "batch_size=8", "--set", "model.channels=16")


def flip_a_bit(path: Path, at: int | None = None) -> None:
    """Flip a bit as a failing disk does: the size and the time of the file stay.

    Args:
        path: the file.
        at: number of the byte; None takes the byte in the middle.
    """
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, except the journals and the lock."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "state" not in path.relative_to(folder).parts and path.name != ".lock"
    }


def write_city_sounds(folder: Path, *, recordings: int, slices: int) -> Path:
    """Write small files in the layout of UrbanSound8K-AV.

    The numbers of the recordings of class c start at 1000 + 100 c.

    Args:
        folder: where the folders of the sounds and images go.
        recordings: number of recordings of each class.
        slices: number of clips of each recording.
    """
    manifest = load("urbansound8k-av")
    assert manifest.layout is not None
    rng = np.random.default_rng(0)
    for label, name in enumerate(manifest.classes):
        sounds = folder / manifest.layout.audio / name
        images = folder / manifest.layout.visual / name
        sounds.mkdir(parents=True)
        images.mkdir(parents=True)
        for recording in range(1000 + 100 * label, 1000 + 100 * label + recordings):
            for slice_ in range(slices):
                stem = f"{recording}-{label}-0-{slice_}"
                samples = rng.uniform(-0.5, 0.5, (1600 + 100 * slice_, 1 + label % 2))
                kind = ("PCM_16", "PCM_24", "FLOAT")[label % 3]
                soundfile.write(sounds / f"{stem}.wav", samples, 8000 + 4000 * label, subtype=kind)
                pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
                cv2.imwrite(str(images / f"{stem}.jpg"), pixels)
    return folder


def remains_of_a_dead_writer(folder: Path, name: str) -> Path:
    """Write an unfinished file as a process leaves it that is killed; return its path."""
    writer = subprocess.Popen(["true"])
    writer.wait()
    host = re.sub(r"[^\w-]", "-", platform.node())[:40]
    path = folder / f".{name}.{host}-{writer.pid}-0123abcd.partial"
    path.write_text("{")
    return path


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium without a window, for tests of pages."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs Chromium; install the Debian package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
