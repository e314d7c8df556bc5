import pytest
import torch

from avsnn.models import kernels


@pytest.mark.parametrize(
    ("name", "device", "sentence"),
    [
        ("fast", "cpu", "no kernels 'fast'; there are auto, torch, cpu, triton"),
        ("triton", "cpu", "'triton' need a CUDA device"),
        ("cpu", "cuda", "'cpu' need a C compiler .* and a CPU, not cuda"),
    ],
)
def test_kernels_that_there_are_not_are_refused(name, device, sentence):
    with pytest.raises(ValueError, match=sentence):
        kernels.choose(name, torch.device(device))
