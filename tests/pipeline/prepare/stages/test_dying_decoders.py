"""Decoders crash in the sandbox on purpose.

The process of the sandbox imports this file, so the file must not import large libraries.
"""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avsnn.pipeline.formats.clip_index import read_rows
from avsnn.pipeline.prepare.build_stages import build_stages
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.prepare.stages import extract


@pytest.fixture
def stage(small_demo: Path) -> extract.Extract:
    settings = {"limit": 72, "extract": {"clips_per_shard": 8}}
    request = PrepareRequest.model_validate({"settings": settings})
    return build_stages("demo", request, root=small_demo).extract


def crash_always(*words: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_clip_on_which_the_decoder_crashes_is_a_failure_and_the_next_is_read(
    stage: extract.Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit_of_shard = next(iter(stage.units()))
    first, second = (replace(unit_of_shard, work=unit_of_shard.work[i : i + 1]) for i in (0, 1))
    monkeypatch.setattr(extract, "_read_clip", crash_always)
    outcome = stage.run(first, tmp_path)
    (row,) = read_rows(stage.index, first.work.tolist())
    reason = f"audio {row.audio} or video {row.visual} crashed its decoder (exit code -9)"
    assert outcome.written == 0
    assert [(f.key, f.reason) for f in outcome.failures] == [(row.key, reason)]
    monkeypatch.undo()
    assert stage.run(second, tmp_path).written == 1
