"""Runs the short version of tests/walks.py."""

from pathlib import Path

import pytest

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from tests.walks import walk
from tests.warm import Warm


def test_after_edits_and_kills_a_prepare_equals_a_fresh_one(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(USER_FOLDER_VARIABLE, "")
    counts = walk(warm, tmp_path / "walk", steps=5, seed=3)
    assert counts["killed"] >= 1
    assert counts["compared"] >= 2
