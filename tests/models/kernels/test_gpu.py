import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from avsnn.models.batch_norm import BatchNorm
from avsnn.models.neuron import LIF
from tests.models.kernels.cases import needs_cuda


@needs_cuda
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_cuda_graph_holds_a_layer_forward_and_backward(kind):
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.lif = BatchNorm(8), LIF()

        def forward(self, current: torch.Tensor) -> torch.Tensor:
            return self.lif.pooled(current, None, self.norm)

    layers = Layers().cuda()
    shape, device = (4, 2, 8, 16, 16), torch.device("cuda")
    sample = torch.randn(shape, device=device, dtype=kind, requires_grad=True)
    graphed = torch.cuda.make_graphed_callables(Layers().cuda(), (sample,))
    results = []
    given, grad = torch.randn(shape, device=device, dtype=kind), None
    for work in (graphed, layers):
        current = given.clone().requires_grad_()
        spikes = work(current)
        grad = torch.randn_like(spikes) if grad is None else grad
        spikes.backward(grad)
        results.append((spikes.detach().clone(), current.grad))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.long
def test_triton_is_tested_by_its_interpreter():
    pytest.importorskip("triton")
    chosen = "kernels_in_triton or ((statistics or put_together) and triton)"
    chosen += " or (logits and auto and uni_visual and eval)"
    reference = Path(__file__).with_name("test_reference.py")
    golden = Path(__file__).parents[1] / "test_golden.py"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n0",
            "-pno:cacheprovider",
            "-k",
            chosen,
            reference,
            golden,
        ],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
