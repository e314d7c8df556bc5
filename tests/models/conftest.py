from collections.abc import Callable, Iterator

import pytest
import torch

from avsnn.models import kernels

CPU = torch.device("cpu")

needs_compiler = pytest.mark.skipif(
    not kernels.cpu.available(CPU),
    reason="needs a C compiler; otherwise torch computes",
)


@pytest.fixture
def kernels_named() -> Iterator[Callable[[str], str]]:
    """Return a function that chooses the kernels for one test."""
    yield lambda name: kernels.choose(name, CPU)
    kernels.choose("auto", CPU)
