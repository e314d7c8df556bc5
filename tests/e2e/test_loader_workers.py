"""What goes wrong in the processes that read batches ends ``train`` soon, with one sentence."""

import os
import shlex
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


def train_with_shared_memory(
    avsnn_path: str, folder: Path, options: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """Train where the shared memory is a file system that is mounted with these options."""
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    command = shlex.join([avsnn_path, "train", "demo", *SETTINGS, *words])
    script = f"mount -t tmpfs -o {options} tmpfs /dev/shm && exec {command}"
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("options", ["size=3m", "size=200k"])
def test_too_little_shared_memory_is_said(
    avsnn_path: str, root: Path, tmp_path: Path, options: str
) -> None:
    # Of 40 clips, not even one batch fits into 3 MB.
    words = ("--set", "batch_size=40") if options == "size=3m" else ()
    done = train_with_shared_memory(avsnn_path, tmp_path, options, "--workers", "2", *words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "--workers 0" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("workers", "code"), [("0", 0), ("1", 2)])
def test_without_shared_memory_a_thread_reads_batches_and_processes_are_refused_in_one_sentence(
    avsnn_path: str, root: Path, tmp_path: Path, workers: str, code: int
) -> None:
    done = train_with_shared_memory(avsnn_path, tmp_path, "ro", "--workers", workers)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert "use --workers 0" in done.stderr.splitlines()[-1]


def has_a_fork_server(pid: int) -> bool:
    """Return whether a process has started the server that starts its workers."""
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):
            if "forkserver" in " ".join(child.cmdline()):
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
    while process.poll() is None and not has_a_fork_server(process.pid):
        pass
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    assert "Traceback" not in stderr


def test_a_training_that_is_killed_leaves_no_process(
    avsnn_path: str, root: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [avsnn_path, "train", "demo", *SETTINGS, "--set", "epochs=1000", "--workers", "2"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any(line.startswith("epoch 2/") for line in process.stderr)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.communicate()
    assert psutil.wait_procs(children, timeout=60)[1] == []


def test_a_limit_of_open_files_that_is_too_low_for_workers_is_one_sentence(
    avsnn_path: str, small_demo: Path, tmp_path: Path
) -> None:
    words = [avsnn_path, "train", "demo", "--root", str(small_demo), *SETTINGS]
    command = f"ulimit -n 24; exec {shlex.join([*words, '--workers', '2'])}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--workers 2 needs 96 open files, and 24 are allowed" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("limit", ["-S -n 18", "-n 18"])
def test_a_data_set_of_more_shards_than_a_process_may_open_files_is_read(
    avsnn_path: str, small_demo: Path, tmp_path: Path, limit: str
) -> None:
    words = [avsnn_path, "train", "demo", "--root", str(small_demo), *SETTINGS]
    command = f"ulimit {limit}; exec {shlex.join([*words, '--read', 'shards'])}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
