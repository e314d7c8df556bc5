from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from avsnn.pipeline.runs.checkpoint import (
    Checkpoint,
    DamagedError,
    read_checkpoint,
    write_checkpoint,
)
from avsnn.pipeline.training.resume import (
    Position,
    keep_newest,
    newest_undamaged,
    resume_path,
    resume_points,
)

SOME = Checkpoint(
    {"weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7), "none": torch.empty(0)},
    {"epoch": 3, "run": "abc"},
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "some.safetensors"
    write_checkpoint(path, SOME)
    return path


def test_what_is_read_is_what_was_written_and_others_read_it_too(written: Path) -> None:
    tensors, facts = read_checkpoint(written)
    assert facts == SOME.facts
    assert all(torch.equal(tensors[name], tensor) for name, tensor in SOME.tensors.items())
    assert set(load_file(written)) == set(SOME.tensors)


def test_the_same_content_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "again", SOME)
    assert (tmp_path / "again").read_bytes() == written.read_bytes()


@given(data=st.data())
def test_any_flipped_bit_is_noticed(
    written: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(written.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    struck = tmp_path_factory.mktemp("struck") / "x.safetensors"
    struck.write_bytes(content)
    with pytest.raises(DamagedError, match="is damaged"):
        read_checkpoint(struck)


@given(share=st.floats(0, 1, exclude_max=True))
def test_any_cut_is_noticed(
    written: Path, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    content = written.read_bytes()
    struck = tmp_path_factory.mktemp("struck") / "x.safetensors"
    struck.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DamagedError, match="is damaged"):
        read_checkpoint(struck)


def test_where_the_newest_is_torn_the_one_before_it_serves_and_that_is_said(tmp_path: Path) -> None:
    for at in (Position(0, 9), Position(0, 10), Position(1, 0)):
        write_checkpoint(resume_path(tmp_path, at), Checkpoint(SOME.tensors, {"step": at.step}))
    torn = resume_path(tmp_path, Position(1, 0))
    torn.write_bytes(torn.read_bytes()[:50])
    said: list[str] = []
    found = newest_undamaged(tmp_path, said.append)
    assert found is not None
    assert (found[0], found[1].facts) == (Position(0, 10), {"step": 10})
    assert len(said) == 1
    assert said[0].startswith(f"{torn} is damaged")
    assert "Going on from the one before it." in said[0]


def test_where_all_are_torn_that_is_said_too(tmp_path: Path) -> None:
    path = resume_path(tmp_path, Position(1, 0))
    path.write_bytes(b"torn")
    said: list[str] = []
    assert newest_undamaged(tmp_path, said.append) is None
    assert said[0].endswith("There is no other: starting anew.")
    assert not path.exists()


def test_only_the_newest_resume_points_are_kept(tmp_path: Path) -> None:
    for at in (Position(2, 0), Position(0, 5), Position(10, 0), Position(2, 30)):
        write_checkpoint(resume_path(tmp_path, at), SOME)
    (tmp_path / "best.safetensors").touch()
    keep_newest(tmp_path, 2)
    assert list(resume_points(tmp_path)) == [Position(10, 0), Position(2, 30)]
    assert (tmp_path / "best.safetensors").exists()
