"""Every network on a GPU, compared with results of the authors' code."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from avsnn.models import kernels
from avsnn.models.losses import LossSettings, training_loss

from .golden import NAMES, Golden, feeds_batch_norm, golden
from .kernels.cases import needs_cuda

pytestmark = needs_cuda

CUDA = torch.device("cuda")

# The random position bias of sca comes from the generator of the device, so it differs on a GPU.
SAME_ON_A_GPU = [name for name in NAMES if name != "sca"]


@pytest.fixture(params=SAME_ON_A_GPU)
def recorded(request) -> Golden:
    return golden(request.param)


@pytest.fixture(params=["auto", "torch"], autouse=True)
def _each_kind_of_kernels(request) -> Iterator[None]:
    kernels.choose(request.param, CUDA)
    yield
    kernels.choose("auto", CUDA)


@pytest.fixture(autouse=True)
def _without_tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def run_on_gpu(recorded: Golden, *, training: bool):
    inputs = (recorded.input(modality) for modality in ("audio", "visual"))
    model = recorded.model(training=training).cuda()
    return model, model(*(None if given is None else given.cuda() for given in inputs))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_logits_on_a_gpu_are_the_published_ones(recorded, mode):
    _, output = run_on_gpu(recorded, training=mode == "train")
    theirs = recorded.arrays[f"{mode}_logits"]
    assert np.abs(output.logits.detach().cpu().numpy() - theirs).max() < 1e-5


def test_gradients_on_a_gpu_are_the_published_ones(recorded):
    model, output = run_on_gpu(recorded, training=True)
    training_loss(output, recorded.labels.cuda(), LossSettings()).total.backward()
    ours = {name: p.grad.cpu() for name, p in model.named_parameters()}
    names = recorded.arrays["gradstat_names"].tolist()
    for name, (norm, _, _largest) in zip(names, recorded.arrays["gradstat"], strict=True):
        if not feeds_batch_norm(name):
            grad = ours[recorded.our_key(name)].double()
            assert grad.norm().item() == pytest.approx(norm, rel=1e-3), name
