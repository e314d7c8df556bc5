"""The operators, compared with batch norm, neurons and pooling as separate layers."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from avsnn.models.batch_norm import BatchNorm
from avsnn.models.kernels import attention_operators, operators
from avsnn.models.neuron import LIF

LAYER = (3, False, False, 2.0, 1.0, 4.0)


def layer_by_layer(norm: BatchNorm, lif: LIF, current, steps, pooled):
    """Compute T copies, torch's batch norm, the neurons and pooling, layer by layer."""
    frames = current if steps is None else current.expand(steps, *current.shape)
    theirs = nn.BatchNorm2d(norm.num_features).to(current.dtype).train(norm.training)
    theirs.load_state_dict(norm.state_dict())
    theirs.weight, theirs.bias = norm.weight, norm.bias
    spikes = lif(theirs(frames.flatten(0, 1)).view_as(frames))
    if pooled:
        out = functional.max_pool2d(spikes.flatten(0, 1), 3, 2, 1)
        spikes = out.view(*spikes.shape[:2], *out.shape[1:])
    return spikes, theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_one_operation_equals_batch_norm_neurons_and_pooling(dtype, steps, pooled, training):
    torch.manual_seed(1)
    shape = (2, 5, 9, 8) if steps else (4, 2, 5, 9, 8)
    current = (torch.randn(shape) * 2 + 1).to(dtype)
    norm, lif = BatchNorm(5).to(dtype).train(training), LIF()
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    fire = lif.pooled if pooled else lif
    results = []
    expected, followed = layer_by_layer(norm, lif, current, steps, pooled)
    grad = torch.randn_like(expected)
    for way in (
        lambda x: fire(x, steps, norm),
        lambda x: layer_by_layer(norm, lif, x, steps, pooled)[0],
    ):
        x = current.clone().requires_grad_()
        norm.zero_grad()
        spikes = way(x)
        spikes.backward(grad)
        results.append((spikes, x.grad, norm.weight.grad.clone(), norm.bias.grad.clone()))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, followed.running_mean)
    torch.testing.assert_close(norm.running_var, followed.running_var)
    with torch.no_grad():
        assert torch.equal(
            fire(current, steps, norm.eval()),
            fire(current, steps, norm),
        )


def test_a_layer_saves_its_current_and_nothing_else_of_its_size():
    saved = []
    current = torch.randn(2, 5, 8, 8, requires_grad=True)
    norm = BatchNorm(5)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        LIF().pooled(current, 7, norm)
    assert sorted(tuple(t.shape) for t in saved) == [(2, 5, 8, 8), (4, 5), (5,)]


@pytest.mark.parametrize("steps", [None, 3])
def test_torch_finds_nothing_wrong_with_the_operators(steps):
    shape = (2, 3, 4, 5) if steps else (3, 2, 3, 4, 5)
    x = torch.randn(shape, requires_grad=True)
    weight, bias = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    rest = (3, steps is not None, True, 2.0, 1.0, 4.0)
    # The tests of gradients need a function with a derivative, and a spike has no derivative.
    kinds = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(
        torch.ops.avsnn.norm_fire, (x, weight, bias, 1e-5, *rest), test_utils=kinds
    )
    torch.library.opcheck(torch.ops.avsnn.fire, (x, None, None, *rest), test_utils=kinds)
    spikes = (torch.rand(2, 4, 6, 6) < 0.1).float().requires_grad_()
    packed, fired = spikes.detach().to(torch.uint8), int(spikes.sum())
    known = (spikes, packed, torch.randn(8, 4, 3, 3, requires_grad=True), None, fired)
    torch.library.opcheck(torch.ops.avsnn.spike_conv, known, test_utils=kinds)


def test_autocast_gives_spikes_in_the_precision_of_the_convolution():
    norm, lif = BatchNorm(4), LIF()
    conv = nn.Conv2d(3, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        current = conv(torch.randn(2, 3, 9, 9)) * 3
        spikes = lif.pooled(current, 4, norm)
    assert spikes.dtype == torch.bfloat16
    spikes.sum().backward()
    assert conv.weight.grad is not None
    assert torch.equal(spikes, lif.pooled(current.float(), 4, norm).bfloat16())


@pytest.mark.parametrize("pooled", [False, True])
def test_a_network_in_bfloat16_is_evaluated_with_the_values_of_its_batch_norm(pooled: bool):
    """The kernels read 32 bits for each channel, so 16 bits would be other values."""
    generator = torch.Generator().manual_seed(0)
    current = torch.randn(4, 2, 8, 6, 6, generator=generator).bfloat16()
    norm = BatchNorm(8).eval()
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            values.copy_(torch.rand(8, generator=generator) + 0.5)
    layer = LIF(threshold=0.5)
    fire = layer.pooled if pooled else layer
    with torch.no_grad():
        half = fire(current, None, norm.bfloat16())
        scale, shift = norm.scale_and_shift()
        shape = (1, 1, 8, 1, 1)
        shifted = current.float() * scale.float().view(shape) + shift.float().view(shape)
        whole = fire(shifted, None, None)
    assert half.float().mean() > 0.05
    assert (half.float() != whole).float().mean() < 0.01


@pytest.mark.parametrize("norm", [None, BatchNorm(8)])
def test_a_second_derivative_is_refused_and_not_left_out_in_silence(norm: BatchNorm | None):
    current = torch.randn(4, 2, 8, 16, requires_grad=True)
    spikes = LIF()(current, None, norm)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(spikes.sum(), current, create_graph=True)


class Zeros(TorchDispatchMode):
    """Counts the tensors that are filled with zeros."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func._schema.name in ("aten::zeros", "aten::zero_", "aten::zeros_like")
        return func(*args, **(kwargs or {}))


OPERATORS = {
    "fire": lambda x: operators.fire(x, None, None, *LAYER),
    "norm_fire": lambda x: operators.norm_fire(x, torch.ones(4), torch.zeros(4), 1e-5, *LAYER),
    "attend_fire": lambda x: attention_operators.attend_fire(x, x, x, 2, "tokens", 2.0, 1.0, 4.0),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_a_backward_pass_writes_no_zeros_for_results_without_a_gradient(name):
    x = torch.ones(3, 2, 4, 5, requires_grad=True)
    spikes = OPERATORS[name](x)[0]
    with Zeros() as zeros:
        spikes.backward(torch.ones_like(spikes))
    assert zeros.count == 0


class NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, spikes):
        return spikes.clone()

    @staticmethod
    def backward(ctx, grad):
        return None


@pytest.mark.parametrize("name", OPERATORS)
def test_spikes_whose_gradient_nobody_computes_give_no_gradient(name):
    x = torch.ones(3, 2, 4, 5, requires_grad=True)
    NoGradient.apply(OPERATORS[name](x)[0]).sum().backward()
    assert x.grad is None or not x.grad.any()
