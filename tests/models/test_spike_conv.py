import pytest
import torch
from torch.nn import functional

from avsnn.models import kernels
from avsnn.models.kernels import cpu
from avsnn.models.spike_conv import SpikeConv1d, SpikeConv2d
from tests.models.conftest import CPU, needs_compiler


def convolution(inputs: int, outputs: int, axes: int) -> SpikeConv1d | SpikeConv2d:
    """Build a convolution of spikes; 1x1 has a bias, as in the networks."""
    if axes == 1:
        return SpikeConv1d(inputs=inputs, outputs=outputs, bias=True)
    return SpikeConv2d(inputs=inputs, outputs=outputs)


@needs_compiler
@pytest.mark.parametrize(
    ("inputs", "outputs", "places", "density", "most"),
    [(32, 64, (20, 22), 0.1, 1), (5, 16, (7, 9), 0.1, 1), (64, 128, (9, 4), 0.02, 1),
     (4, 8, (1, 1), 0.0, 1), (8, 64, (70, 3), 0.05, 1), (3, 96, (8, 8), 0.1, 1),
     (4, 64, (8, 8), 0.6, 1), (32, 64, (37,), 0.1, 1), (70, 128, (64,), 0.05, 2),
     (3, 64, (1,), 0.0, 1), (5, 48, (16,), 0.1, 3), (8, 64, (9,), 0.6, 3), (8, 64, (9, 9), 0.1, 2)],
)  # fmt: skip
def test_adding_weights_for_each_spike_equals_a_convolution(inputs, outputs, places, density, most):
    torch.manual_seed(0)
    spikes = (torch.rand(3, inputs, *places) < density) * torch.randint(
        1, most + 1, (3, inputs, *places)
    )
    layer = convolution(inputs, outputs, len(places))
    grad = torch.randn(3, outputs, *places)
    results = []
    for name, dtype in (("torch", torch.float64), ("auto", torch.float32)):
        kernels.choose(name, CPU)
        layer.to(dtype).zero_grad()
        s = spikes.to(dtype).requires_grad_()
        out = layer(s)
        out.backward(grad.to(dtype))
        gradients = [p.grad.double().clone() for p in (s, *layer.parameters())]
        results.append((out.double(), *gradients))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize(
    ("inputs", "outputs", "places"),
    [(2, 4, (2, 70_000)), (1, 64, (70_000,)), (70_000, 64, (2,))],
    ids=["columns of 3x3", "places of 1x1", "inputs of 1x1"],
)
def test_sizes_above_16_bits_are_counted_rightly(inputs, outputs, places):
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(1, inputs, *places, generator=generator) < 0.02).float()
    layer = convolution(inputs, outputs, len(places))
    packed = cpu.pack(spikes, layer.weight)
    assert packed is not None
    with torch.no_grad():
        out = cpu.spike_conv(packed[0], layer.weight, layer.bias, packed[1])
        convolve = functional.conv1d if len(places) == 1 else functional.conv2d
        due = convolve(spikes, layer.weight, layer.bias, padding=layer.padding)
        torch.testing.assert_close(out, due, rtol=1e-4, atol=1e-5)
        grad = torch.randn(due.shape, generator=generator)
        ours = cpu.spike_conv_backward(grad, packed[0], layer.weight, packed[1])
    axes = len(places)
    theirs = torch.ops.aten.convolution_backward(
        *(grad, spikes, layer.weight, None, [1] * axes, [axes - 1] * axes, [1] * axes),
        *(False, [0] * axes, 1, [False, True, False]),
    )[1]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@needs_compiler
def test_a_frame_of_more_values_than_32_bits_count_is_convolved_densely():
    # All values share one byte of memory.
    packed = torch.zeros(1, dtype=torch.uint8).expand(1, 2, 2**29)
    weight = torch.zeros(64, 2, 1)
    assert cpu.spike_conv(packed, weight, None, 0) is None
    assert cpu.spike_conv_backward(weight, packed, weight, 0) is None


@needs_compiler
@pytest.mark.parametrize("strange", [0.5, -1.0, 4.0, 300.0, float("nan"), float("inf")])
def test_what_are_no_spikes_is_convolved_as_ever(strange):
    layer = convolution(8, 64, 1)
    features = torch.zeros(2, 8, 9)
    features[0, 3, 5] = strange
    due = functional.conv1d(features, layer.weight, layer.bias)
    torch.testing.assert_close(layer(features), due, equal_nan=True, rtol=0, atol=0)


@needs_compiler
@pytest.mark.parametrize("places", [(9, 9), (30,)])
def test_spikes_are_saved_as_bytes(places):
    saved = []
    spikes = (torch.rand(2, 8, *places) < 0.1).float().requires_grad_()
    layer = convolution(8, 64, len(places))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(spikes)
    found = [(t.shape, t.dtype) for t in saved if t is not layer.weight]
    assert found == [(spikes.shape, torch.uint8)]


@needs_compiler
@pytest.mark.parametrize("places", [(18, 18), (70,)])
def test_a_convolution_of_spikes_is_the_same_to_the_bit_with_any_number_of_threads(places):
    layer = convolution(32, 64, len(places))
    spikes = (torch.rand(4, 32, *places) < 0.1).float()
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            layer.zero_grad()
            out = layer(spikes.requires_grad_())
            out.square().sum().backward()
            results.append((out, layer.weight.grad))
        assert all(map(torch.equal, *results))
    finally:
        torch.set_num_threads(before)
