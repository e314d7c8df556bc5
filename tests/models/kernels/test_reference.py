"""The spikes and gradients of every kernel, compared with the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avsnn.models.kernels import cpu, reference
from avsnn.models.kernels.layer_spec import LayerSpec
from tests.models.conftest import needs_compiler
from tests.models.kernels.cases import layers, named, needs_cuda, needs_interpreter


def compare_with_reference(kernels, case, scaled):
    layer, current, scale, shift = case
    known = (scale, shift) if scaled else (None, None)
    spikes, count = reference.fire(current, *known, layer)
    whole, _ = reference.fire(current, *known, layer._replace(pooled=False))
    assert count.tolist() == [int(whole.sum()), whole.numel()]
    for found, due in zip(kernels.fire(current, *known, layer), (spikes, count), strict=True):
        assert torch.equal(found, due)
    grad = torch.randn_like(spikes)
    ours, sums = kernels.fire_backward(grad, current, *known, shift, layer)
    theirs, due = reference.fire_backward(
        *(x if x is None else x.double() for x in (grad, current, *known, shift)), layer
    )
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sums.double(), due, rtol=1e-5, atol=1e-4)


@needs_compiler
@settings(max_examples=150, deadline=None)
@given(layers(), st.booleans())
def test_kernels_in_c_give_the_spikes_and_gradients_of_the_reference(case, scaled):
    compare_with_reference(cpu, case, scaled)


@needs_interpreter
@settings(max_examples=8, deadline=None)
@given(layers(), st.booleans())
def test_kernels_in_triton_give_the_spikes_and_gradients_of_the_reference(case, scaled):
    compare_with_reference(named("gpu"), case, scaled)


@needs_cuda
@settings(max_examples=150, deadline=None)
@given(layers(), st.booleans())
def test_kernels_on_a_gpu_give_the_spikes_and_gradients_of_the_reference(case, scaled):
    layer, *tensors = case
    on_gpu = (layer, *(tensor.cuda() for tensor in tensors))
    compare_with_reference(named("gpu"), on_gpu, scaled)


@pytest.mark.parametrize(
    "kernels",
    [pytest.param("cpu", marks=needs_compiler), pytest.param("gpu", marks=needs_interpreter)],
    ids=["c", "triton"],
)
@pytest.mark.parametrize("shape", [(4, 3, 64), (2, 5, 9, 7), (1, 1, 1), (3, 2, 1000)])
def test_statistics_are_those_of_the_reference_in_double_precision(kernels, shape):
    current = torch.randn(shape) * 3 + 100
    torch.testing.assert_close(
        named(kernels).moments(current).double(),
        reference.moments(current.double()),
        rtol=1e-6,
        atol=1e-7,
    )


@pytest.mark.parametrize(
    "kernels",
    [pytest.param("cpu", marks=needs_compiler), pytest.param("gpu", marks=needs_interpreter)],
    ids=["c", "triton"],
)
def test_the_gradient_of_a_batch_norm_is_put_together_for_each_channel(kernels):
    grad, current = torch.randn(2, 3, 3, 5, 7).unbind()
    a, b, c = torch.randn(3, 3).unbind()
    due = grad.clone()
    reference.norm_backward(due, current, a, b, c)
    named(kernels).norm_backward(grad, current, a, b, c)
    torch.testing.assert_close(grad, due)


@needs_interpreter
def test_kernels_in_triton_take_bfloat16_as_it_is():
    gpu = named("gpu")
    layer = LayerSpec(3, False, True, 2.0, 1.0, 4.0)
    current = (torch.randn(3, 2, 4, 9, 8) * 2).bfloat16()
    scale, shift = torch.rand(4) + 0.5, torch.randn(4)
    spikes, _ = gpu.fire(current, scale, shift, layer)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), reference.fire(current.float(), scale, shift, layer)[0])
    grad = torch.randn_like(spikes)
    ours, sums = gpu.fire_backward(grad, current, scale, shift, shift, layer)
    theirs, due = reference.fire_backward(grad.float(), current.float(), scale, shift, shift, layer)
    torch.testing.assert_close(ours.float(), theirs, rtol=2e-2, atol=1e-2)
    torch.testing.assert_close(sums, due, rtol=2e-2, atol=1e-1)
