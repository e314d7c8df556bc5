"""Runs the short version of tests/walks.py."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from tests.walks import Kill, Step, make_source, steps, walk
from tests.warm import Warm


@pytest.fixture(scope="module")
def source(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(USER_FOLDER_VARIABLE, "")
        yield make_source(warm, tmp_path_factory.mktemp("walks") / "made")


def test_after_edits_and_kills_a_prepare_equals_a_fresh_one(
    warm: Warm, source: Path, tmp_path: Path
) -> None:
    counts: Counter[str] = Counter()

    # No shrinking: a walk takes seconds, and `python -m tests.walks` shrinks.
    @settings(
        max_examples=3,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(steps(least=2, most=3))
    def take(taken: list[Step]) -> None:
        counts["walks"] += 1
        counts.update(walk(warm, tmp_path / f"walk-{counts['walks']}", source, taken))

    take()
    assert counts["killed"] >= 2
    assert counts["compared"] == counts["walks"]


def test_after_edits_an_older_run_is_refused_or_gives_the_numbers_of_a_new_run(
    warm: Warm, source: Path, tmp_path: Path
) -> None:
    taken = [
        Step("remove_clips", 7, ("--set", "extract.clips_per_shard=8")),
        Step("relabel", 3, (), Kill(2, 0)),
    ]
    counts = walk(warm, tmp_path / "walk", source, taken, trains=True)
    assert counts["killed"] == 1
    assert counts["compared"] == counts["refused"] + counts["same numbers"] == 2
