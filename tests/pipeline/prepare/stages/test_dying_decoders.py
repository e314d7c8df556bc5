"""Decoders that crash in the sandbox, on purpose. It imports this file: keep its imports light."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avsnn.pipeline.prepare.build import build_stages
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.stages import extract


@pytest.fixture
def stage(small_demo: Path) -> extract.Extract:
    settings = {"limit": 72, "extract": {"clips_per_shard": 8}}
    request = PrepareRequest.model_validate({"settings": settings})
    return build_stages("demo", request, root=small_demo).extract


def crash_beside_opencv(*words: Any) -> Any:
    """Runs in the sandbox, which has the real function."""
    if "opencv" in words[-1]:
        os.kill(os.getpid(), signal.SIGSEGV)
    return extract._read_clip(*words)


def crash_always(*words: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_one_decoder_crashes_on_the_other_reads_to_the_same_bytes(
    stage: extract.Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("decord", reason="decord has no build for this machine")
    whole = stage.units()[0]
    unit = replace(whole, inputs=dict([*whole.inputs.items()][:1]))
    for name in ("calm", "crashing"):
        (tmp_path / name).mkdir()
    assert stage.run(unit, tmp_path / "calm").written == 1
    monkeypatch.setattr(extract, "_read_clip", crash_beside_opencv)
    assert stage.run(unit, tmp_path / "crashing").written == 1
    for name in unit.outputs:
        assert (tmp_path / "crashing" / name).read_bytes() == (
            tmp_path / "calm" / name
        ).read_bytes()


def test_what_every_decoder_crashes_on_is_a_failure_and_the_next_clip_is_read(
    stage: extract.Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stage.units()[0]
    first, second = (replace(whole, inputs={key: row}) for key, row in [*whole.inputs.items()][:2])
    monkeypatch.setattr(extract, "_read_clip", crash_always)
    outcome = stage.run(first, tmp_path)
    row = next(iter(first.inputs.values()))
    told = f"audio {row['audio']} or video {row['visual']} crashed its decoder (exit code -9)"
    assert outcome.written == 0
    assert [(f.key, f.reason) for f in outcome.failures] == [(row["key"], told)]
    monkeypatch.undo()
    assert stage.run(second, tmp_path).written == 1
