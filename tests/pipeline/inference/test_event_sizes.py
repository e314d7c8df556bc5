"""Event frames of a size that no network reads; the advice leads to a training."""

from pathlib import Path

import pytest

from tests.conftest import Command
from tests.event_data import write_event_data


@pytest.mark.parametrize(
    ("side", "assignments", "advice"),
    [
        # N-MNIST without a crop.
        (34, (), "events.crop=36"),
        (17, (), "events.crop=20"),
        (1, ("data.size=1",), "events.crop=4"),
        (28, ("data.size=32",), "add --set data.size=28"),
        (36, ("data.size=36", "model.patch_split=deep"), "model.patch_split=shallow"),
    ],
)
def test_a_size_that_no_network_reads_is_refused_with_a_way_on(
    tmp_path: Path, avsnn: Command, side: int, assignments: tuple[str, ...], advice: str
) -> None:
    root = write_event_data(tmp_path / "data", frames=(4, 2, side, side))
    words = [
        word for one in ("model.steps=4", "batch_size=8", *assignments) for word in ("--set", one)
    ]
    refused = avsnn("train", "demo", "--root", root, "--run", "run", *words)
    assert refused.returncode == 2
    assert advice in refused.stderr
    assert "data.size=34" not in refused.stderr
