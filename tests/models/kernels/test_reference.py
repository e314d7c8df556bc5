"""The spikes and gradients of the kernels in C, compared with the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avsnn.models.kernels import cpu, reference
from tests.models.conftest import needs_compiler
from tests.models.kernels.cases import layers


@needs_compiler
@settings(max_examples=150, deadline=None)
@given(layers(), st.booleans())
def test_kernels_in_c_give_the_spikes_and_gradients_of_the_reference(case, scaled):
    layer, current, scale, shift = case
    known = (scale, shift) if scaled else (None, None)
    spikes, count = reference.fire(current, *known, layer)
    whole, _ = reference.fire(current, *known, layer._replace(pooled=False))
    assert count.tolist() == [int(whole.sum()), whole.numel()]
    for found, due in zip(cpu.fire(current, *known, layer), (spikes, count), strict=True):
        assert torch.equal(found, due)
    grad = torch.randn_like(spikes)
    ours, sums = cpu.fire_backward(grad, current, *known, shift, layer)
    theirs, due = reference.fire_backward(
        *(x if x is None else x.double() for x in (grad, current, *known, shift)), layer
    )
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sums.double(), due, rtol=1e-5, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("shape", [(4, 3, 64), (2, 5, 9, 7), (1, 1, 1), (3, 2, 1000)])
def test_statistics_are_those_of_the_reference_in_double_precision(shape):
    current = torch.randn(shape) * 3 + 100
    torch.testing.assert_close(
        cpu.moments(current).double(), reference.moments(current.double()), rtol=1e-6, atol=1e-7
    )


@needs_compiler
def test_the_gradient_of_a_batch_norm_is_put_together_for_each_channel():
    grad, current = torch.randn(2, 3, 3, 5, 7).unbind()
    a, b, c = torch.randn(3, 3).unbind()
    due = grad.clone()
    reference.norm_backward(due, current, a, b, c)
    cpu.norm_backward(grad, current, a, b, c)
    torch.testing.assert_close(grad, due)
