"""A rerun that finds its seal unbroken looks no further: a seal must notice what a plan would."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avsnn.errors import UserError
from avsnn.pipeline.engine.lock import lock_folder
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.prepare import snapshot
from avsnn.pipeline.prepare.build import build_stages
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.request import PrepareRequest, load_request
from avsnn.pipeline.prepare.snapshot import finished_before
from avsnn.pipeline.prepare.stages.extract import Extract
from tests.conftest import NoProgress


@pytest.fixture
def root(small_demo: Path, tmp_path: Path) -> Path:
    """A root of one's own whose snapshot is unchanged."""
    copy = shutil.copytree(small_demo, tmp_path / "data")
    assert seen(copy) is not None
    return copy


def asked(root: Path, **changes: Any) -> PrepareRequest:
    request = load_request(root, "demo")
    assert request is not None
    return request.model_copy(update=changes)


def seen(root: Path, **changes: Any) -> object:
    return finished_before("demo", asked(root, **changes), root=root)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("strike", [Path.unlink, lengthen, touch])
@pytest.mark.parametrize(
    "place",
    [
        "raw/audio/*.wav",
        "index/clips.jsonl",
        "shards/*/*.tar",
        "cache/*/audio/c/0/0/0/0",
        "state/*.jsonl",
        "failures.jsonl",
        "prepared.json",
    ],
)
def test_a_file_that_is_not_as_it_was_breaks_the_snapshot(
    root: Path, place: str, strike: Callable[[Path], object]
) -> None:
    strike(min((root / "demo").glob(place)))
    assert seen(root) is None


def test_what_else_a_plan_is_made_of_breaks_the_snapshot(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen(root, settings=PrepareSettings(limit=71)) is None
    assert seen(root, source=root) is None
    assert seen(root, max_failures=0.5) is None
    monkeypatch.setattr(Extract, "version", Extract.version + 1)
    assert seen(root) is None


def test_a_table_with_other_clips_breaks_the_snapshot(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = snapshot.load("demo")
    table = tmp_path / "other.csv"
    table.write_bytes(manifest.table_bytes.replace(b",train", b",test", 1))
    monkeypatch.setattr(snapshot, "load", lambda _: manifest.with_table(table))
    assert seen(root) is None


def test_the_snapshot_is_not_read_while_another_run_writes(root: Path) -> None:
    with lock_folder(root / "demo"), pytest.raises(UserError, match="another avsnn run"):
        seen(root)


def test_mending_what_changed_writes_the_snapshot_again(root: Path) -> None:
    min((root / "demo").glob("shards/*/*.tar")).unlink()
    stages = build_stages("demo", asked(root), root=root)
    prepare(stages, workers=0, progress=NoProgress())
    assert seen(root) is not None
