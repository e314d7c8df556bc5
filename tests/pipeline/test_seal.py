"""A rerun that finds its seal unbroken looks no further: a seal must notice what a plan would."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avsnn.errors import UserError
from avsnn.pipeline import prepare as stages
from avsnn.pipeline.extract import Extract
from avsnn.pipeline.files import only_writer
from avsnn.pipeline.prepare import Request, load_request, prepare, prepared_before
from tests.conftest import NoProgress


@pytest.fixture
def root(small_demo: Path, tmp_path: Path) -> Path:
    """A root of one's own whose seal is unbroken."""
    copy = shutil.copytree(small_demo, tmp_path / "data")
    assert seen(copy) is not None
    return copy


def asked(root: Path, **changes: Any) -> Request:
    request = load_request(root, "demo")
    assert request is not None
    return request.model_copy(update=changes)


def seen(root: Path, **changes: Any) -> object:
    return prepared_before("demo", asked(root, **changes), root=root)


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
def test_a_file_that_is_not_as_it_was_breaks_the_seal(
    root: Path, place: str, strike: Callable[[Path], object]
) -> None:
    strike(min((root / "demo").glob(place)))
    assert seen(root) is None


def test_what_else_a_plan_is_made_of_breaks_the_seal(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen(root, settings=stages.PrepareSettings(limit=71)) is None
    assert seen(root, source=root) is None
    assert seen(root, max_failures=0.5) is None
    monkeypatch.setattr(Extract, "version", Extract.version + 1)
    assert seen(root) is None


def test_a_table_with_other_clips_breaks_the_seal(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = stages.load("demo")
    table = tmp_path / "other.csv"
    table.write_bytes(manifest.table_bytes.replace(b",train", b",test", 1))
    monkeypatch.setattr(stages, "load", lambda _: manifest.with_table(table))
    assert seen(root) is None


def test_a_seal_is_not_looked_at_while_another_run_writes(root: Path) -> None:
    with only_writer(root / "demo"), pytest.raises(UserError, match="another avsnn run"):
        seen(root)


def test_mending_what_broke_the_seal_seals_again(root: Path) -> None:
    min((root / "demo").glob("shards/*/*.tar")).unlink()
    house = stages.build_stages("demo", asked(root), root=root)
    prepare(house, workers=0, progress=NoProgress())
    assert seen(root) is not None
