from collections.abc import Callable, Iterator

import pytest
import torch

from avsnn.models import kernels


@pytest.fixture
def kernels_named() -> Iterator[Callable[[str], str]]:
    """Chooses kernels for one test."""
    yield lambda name: kernels.choose(name, torch.device("cpu"))
    kernels.choose("auto", torch.device("cpu"))
