"""The spikes and gradients of every kernel, compared with the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avsnn.models.kernels import cpu, reference
from avsnn.models.kernels.layer_spec import LayerSpec
from tests.models.conftest import needs_compiler
from tests.models.kernels.cases import layers, named, needs_cuda, needs_interpreter

LAYER_OF_TWO_STEPS = LayerSpec(2, False, False, 2.0, 1.0, 4.0)


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


@needs_compiler
@settings(max_examples=150, deadline=None)
@given(layers(), st.booleans())
def test_kernels_in_c_take_bfloat16_as_it_is(case, scaled):
    layer, current, scale, shift = case
    current = current.bfloat16()
    assert cpu.as_input(current) is current
    known = (scale, shift) if scaled else (None, None)
    spikes, count = cpu.fire(current, *known, layer)
    due, due_count = reference.fire(current.float(), *known, layer)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), due)
    assert torch.equal(count, due_count)
    grad = torch.randn(spikes.shape).bfloat16()
    ours, sums = cpu.fire_backward(grad, current, *known, shift, layer)
    wide = cpu.fire_backward(grad.float(), current.float(), *known, shift, layer)
    assert_rounded_once(ours, wide[0])
    # Sums are taken before gradients are rounded, so they are those of float32.
    torch.testing.assert_close(sums, wide[1], rtol=1e-5, atol=1e-4)


def assert_rounded_once(ours: torch.Tensor, wide: torch.Tensor) -> None:
    """Compare with float32 values rounded as torch rounds, which may differ in the last bit."""
    assert ours.dtype == torch.bfloat16
    due = wide.bfloat16()
    torch.testing.assert_close(ours, due, rtol=2**-7, atol=1e-37)
    assert (ours == due).float().mean() > 0.95


@needs_compiler
@pytest.mark.parametrize("shape", [(4, 3, 64), (2, 5, 9, 7), (1, 1, 1), (3, 2, 1000)])
def test_batch_norm_in_c_takes_bfloat16_as_it_is(shape):
    current, grad = (torch.randn(2, *shape) * 3 + 100).bfloat16()
    wide = cpu.moments(current.float())
    torch.testing.assert_close(cpu.moments(current), wide, rtol=1e-6, atol=1e-6)
    factors = torch.randn(3, shape[1]).unbind()
    due = grad.float()
    cpu.norm_backward(due, current.float(), *factors)
    cpu.norm_backward(grad, current, *factors)
    assert torch.equal(grad, due.bfloat16())


@needs_compiler
def test_values_in_bfloat16_are_rounded_as_torch_rounds_them():
    strange = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 3.4e38, -3.4e38, 1e-40]
    # Halfway between two values of bfloat16, and one bit beside the middle.
    middles = torch.tensor([1.00390625, 1.01171875, -1.00390625, 1.003906369, 1.003906131])
    shift = torch.cat([torch.tensor(strange), middles, torch.randn(10_000)])
    ours = torch.zeros(1, len(shift), 1, dtype=torch.bfloat16)
    nothing = torch.zeros(len(shift))
    cpu.norm_backward(ours, torch.zeros_like(ours), nothing, nothing, shift)
    due = shift.bfloat16()
    torch.testing.assert_close(ours.view(-1), due, rtol=0, atol=0, equal_nan=True)


@needs_compiler
def test_a_gradient_of_another_type_than_the_current_is_refused():
    current = torch.randn(2, 3, 4, 5).bfloat16()
    with pytest.raises(TypeError, match=r"gradient is torch\.float32, the current torch\.bfloat16"):
        cpu.fire_backward(current.float(), current, None, None, None, LAYER_OF_TWO_STEPS)
    ones = torch.ones(3)
    with pytest.raises(TypeError, match=r"gradient is torch\.float32, the current torch\.bfloat16"):
        cpu.norm_backward(current[0].float(), current[0], ones, ones, ones)


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
