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

CHECKPOINT = Checkpoint(
    {"weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7), "none": torch.empty(0)},
    {"epoch": 3, "run": "abc"},
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "some.safetensors"
    write_checkpoint(path, CHECKPOINT)
    return path


def test_a_checkpoint_is_read_as_it_was_written_also_by_safetensors(written: Path) -> None:
    tensors, facts = read_checkpoint(written)
    assert facts == CHECKPOINT.facts
    assert all(torch.equal(tensors[name], tensor) for name, tensor in CHECKPOINT.tensors.items())
    assert set(load_file(written)) == set(CHECKPOINT.tensors)


def test_the_same_content_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "again", CHECKPOINT)
    assert (tmp_path / "again").read_bytes() == written.read_bytes()


@given(data=st.data())
def test_a_flipped_bit_at_any_place_is_noticed(
    written: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(written.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    damaged = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    damaged.write_bytes(content)
    with pytest.raises(DamagedError, match="is damaged"):
        read_checkpoint(damaged)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_checkpoint_that_is_cut_off_anywhere_is_noticed(
    written: Path, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    content = written.read_bytes()
    damaged = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    damaged.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DamagedError, match="is damaged"):
        read_checkpoint(damaged)
