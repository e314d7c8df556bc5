"""Layers and currents for the tests of the kernels, and the marks that skip a test."""

import os
from importlib.util import find_spec

import pytest
import torch
from hypothesis import strategies as st

from avsnn.models.kernels.layer_spec import LayerSpec

needs_interpreter = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" or find_spec("triton") is None,
    reason="needs TRITON_INTERPRET=1, which test_triton_is_tested_by_its_interpreter sets",
)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@st.composite
def layers(draw: st.DrawFn) -> tuple[LayerSpec, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw a layer, and its current, scale and shift; some potentials lie on the threshold."""
    pooled = draw(st.booleans())
    layer = LayerSpec(
        steps=draw(st.sampled_from([1, 2, 3, 4, 6, 9])),
        constant=draw(st.booleans()),
        pooled=pooled,
        tau=draw(st.sampled_from([1.0, 2.0, 2.5, 4.0])),
        threshold=draw(st.sampled_from([0.5, 1.0])),
        slope=draw(st.sampled_from([4.0, 2.0])),
    )
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    sides = [draw(st.integers(1, 19)), draw(st.integers(1, 35))] if pooled else []
    sides = sides or [draw(st.sampled_from([1, 7, 64, 65, 200]))]
    shape = [batch, channels, *sides] if layer.constant else [layer.steps, batch, channels, *sides]
    dice = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    current = torch.randn(shape, generator=dice) * 2 + 0.5
    if draw(st.booleans()):
        current = (current * 2).round() / 2
    scale = torch.rand(channels, generator=dice) + 0.5
    return layer, current, scale, torch.randn(channels, generator=dice) * 0.1
