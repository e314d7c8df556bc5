"""Two processes train one network together; the result must be that of one process alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from avsnn.pipeline.runs.checkpoint import read_checkpoint
from avsnn.pipeline.runs.metrics import read_metrics
from avsnn.pipeline.training.resume import resume_points
from tests.warm import Warm

# These tests start first, so that one process runs all of them and makes the fixture `runs` once.
pytestmark = pytest.mark.long

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
# With this preset every layer spikes, so all that the processes exchange affects the result.
WORDS = ["--preset", "healthy", "--set", "model.channels=16", "--set", "epochs=2"]
WORDS += ["--set", "data.size=32", "--set", "batch_size=8", "--device", "cpu", "--save-every", "1"]
TOGETHER = ["--set", "distributed.sync_batch_norm=true"]
TOGETHER += ["--set", "distributed.global_alignment=true"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", *TORCHRUN, "avsnn", "train", "demo", *WORDS, *words]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), capture_output=True, text=True, check=False, env=ONE_THREAD
    )


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def runs(warm: Warm, small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run folders of the same training by one process and by two, by the number of processes."""
    folder = tmp_path_factory.mktemp("processes")
    words = [*TOGETHER, "--root", str(small_demo), "--keep", "99", "--run-dir"]
    alone = warm.run(["train", "demo", *WORDS, *words, str(folder / "1")], folder)
    for done in (alone, run(*words, str(folder / "2"))):
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("next: avsnn evaluate") == 1
    return {processes: folder / str(processes) for processes in (1, 2)}


def test_two_processes_reach_the_metrics_of_one(runs: dict[int, Path]) -> None:
    one, two = (read_metrics(runs[processes]) for processes in (1, 2))
    assert len(one) == len(two) == 2
    for by_two, by_one in zip(two, one, strict=True):
        for name in ("loss", "cross_entropy", "alignment", "accuracy", "val_loss", "val_accuracy"):
            assert by_two[name] == pytest.approx(by_one[name], rel=1e-3, abs=1e-6), name
        assert by_two["alignment"] > 0
    # A spiking network is chaotic: even in the first epoch the spike rates agree only nearly.
    rates = [line["spike_rates"] for line in (one[0], two[0])]
    assert list(rates[0]) == list(rates[1])
    for layer, rate in rates[0].items():
        assert rates[1][layer] == pytest.approx(rate, abs=0.02), layer


def test_the_first_step_of_two_processes_gives_the_weights_of_one(runs: dict[int, Path]) -> None:
    weights = []
    for folder in runs.values():
        points = resume_points(folder / "checkpoints")
        first = min(points)
        assert first.step == 1
        weights.append(read_checkpoint(points[first]).tensors)
    one, two = weights
    for name, tensor in one.items():
        # Before a batch norm, the gradient of a bias is rounding noise, and Adam's first step is
        # the sign of this noise.
        if name.startswith("model.") and "conv.bias" not in name:
            assert two[name].double().numpy() == pytest.approx(
                tensor.double().numpy(), rel=1e-3, abs=2e-5
            ), name


def test_one_process_resumes_where_two_processes_received_sigterm(
    warm: Warm, small_demo: Path, tmp_path: Path, runs: dict[int, Path]
) -> None:
    words = [*TOGETHER, "--root", str(small_demo), "--run-dir", str(tmp_path / "cut")]
    process = subprocess.Popen(
        command(*words),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=ONE_THREAD,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 1/2"):
            os.killpg(process.pid, signal.SIGTERM)
            break
    assert "told to end; saved after 1 epochs and" in process.stderr.read()
    process.wait()
    resumed = warm.run(["train", "demo", *WORDS, *words, "--resume"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "1 of 2 epochs and" in resumed.stderr
    expected: list[dict[str, Any]] = read_metrics(runs[2])
    found = read_metrics(tmp_path / "cut")
    assert found[0]["loss"] == expected[0]["loss"]
    assert found[1]["loss"] == pytest.approx(expected[1]["loss"], rel=1e-2)


def test_two_processes_train_without_a_common_batch_norm_by_default(
    small_demo: Path, tmp_path: Path
) -> None:
    words = ["--root", str(small_demo), "--run-dir", str(tmp_path / "apart")]
    done = run(*words, "--set", "epochs=1")
    assert done.returncode == 0, done.stderr
    assert "on cpu in 2 processes" in done.stderr
    config = (tmp_path / "apart" / "config.yaml").read_text()
    assert "processes: '2'" in config
    assert json.loads((tmp_path / "apart" / "metrics.jsonl").read_text().splitlines()[0])


def test_a_batch_that_cannot_be_shared_out_evenly_ends_with_one_sentence(
    small_demo: Path, tmp_path: Path
) -> None:
    words = ["--root", str(small_demo), "--run-dir", str(tmp_path / "r")]
    done = run(*words, "--set", "batch_size=9")
    assert done.returncode != 0
    assert done.stderr.count("batch_size 9 cannot be shared out evenly") == 1
