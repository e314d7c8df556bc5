"""What goes wrong in the processes that read batches ends ``train`` soon, with one sentence."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

SETTINGS = ("--set", "epochs=1", "--set", "batch_size=8", "--set", "model.channels=16")


@pytest.fixture
def root(small_demo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_demo, tmp_path / "data"))


def flip_bits(path: Path) -> None:
    """Damage every chunk of a Zarr shard, and leave the table of the chunks."""
    data = bytearray(path.read_bytes())
    for at in range(0, len(data) - 10_000, 10_000):
        data[at] ^= 1
    path.write_bytes(data)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("pattern", "damage", "words"),
    [
        ("cache/frames-*/frames/c/0/0/0/0", flip_bits, ("--workers", "1")),
        ("shards/*/train-008192.tar", cut_in_half, ("--workers", "2", "--read", "shards")),
    ],
)
def test_damage_that_a_worker_meets_ends_the_command(
    avsnn_path: str,
    root: Path,
    tmp_path: Path,
    pattern: str,
    damage: Callable[[Path], None],
    words: tuple[str, ...],
) -> None:
    for path in (root / "demo").glob(pattern):
        damage(path)
    done = subprocess.run(
        [avsnn_path, "train", "demo", *SETTINGS, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "is damaged" in done.stderr.splitlines()[-1]
    assert "run 'avsnn repair'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("options", ["size=3m", "size=200k"])
def test_too_little_shared_memory_is_said(
    avsnn_path: str, root: Path, tmp_path: Path, options: str
) -> None:
    command = " ".join([avsnn_path, "train", "demo", *SETTINGS, "--workers", "2"])
    if options == "size=3m":
        # Not even one batch fits.
        command += " --set batch_size=40"
    script = f"mount -t tmpfs -o {options} tmpfs /dev/shm && exec {command}"
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "--workers 0" in done.stderr.splitlines()[-1]


def has_a_worker(pid: int) -> bool:
    """Return whether a process has a child that is started as ``python -c "… spawn_main …"``."""
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                return True
    return False


def test_sigterm_to_all_processes_while_workers_start_ends_with_75(
    avsnn_path: str, root: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [avsnn_path, "train", "demo", *SETTINGS, "--workers", "2"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not has_a_worker(process.pid):
        pass
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    assert "Traceback" not in stderr
