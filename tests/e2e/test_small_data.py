"""A training on a few dozens of clips succeeds, or is told why it does not."""

import re
from pathlib import Path

import pytest

from avsnn.pipeline.runs.metrics import read_metrics
from tests.conftest import ALONE, Command
from tests.own_videos import write_class_folders

# 39 clips make three steps of 13 in each epoch.
WORDS = ["batch_size=13", "epochs=5", "optimizer.warmup_epochs=1", "optimizer.base_lr=0.4"]
WORDS += ["selection=test", "model.method=add", "model.channels=16", "data.size=32"]


def test_39_clips_are_learned_with_new_statistics_or_the_setting_is_proposed(
    avsnn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    write_class_folders(tmp_path / "pets", clips=48, seconds=0.5)
    assert avsnn("datasets", "new", "pets").returncode == 0
    assert avsnn("prepare", "pets", *ALONE).returncode == 0
    found = {}
    for value in ("false", "true"):
        words = [f"--set={word}" for word in (*WORDS, f"optimizer.recalibrate_norms={value}")]
        done = avsnn(
            *("train", "pets", "--preset", "small", "--preset", "healthy"),
            *(*words, "--run", value, "--device", "cpu"),
        )
        assert done.returncode == 0, done.stderr
        assert re.search(r"\b39 clips to train on", " ".join(done.stderr.split()))
        said = "try --set optimizer.recalibrate_norms=true" in " ".join(done.stderr.split())
        last = read_metrics(tmp_path / value)[-1]
        found[value] = last["accuracy"] - last["test_accuracy"], said
    gap, said = found["false"]
    assert gap > 0.3
    assert said
    gap, said = found["true"]
    assert gap < 0.15
    assert not said
