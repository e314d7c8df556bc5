"""Attention with its neurons as one operator, compared with attention and neurons as two layers."""

import os
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from avsnn.models.attention import (
    PublishedTemporalMix,
    SpatialMix,
    SpikingAttention,
    TemporalMix,
    split_heads,
)
from avsnn.models.kernels import attention_operators, attention_products
from avsnn.models.kernels.layer_spec import AttentionSpec
from avsnn.models.neuron import LIF
from tests.models.kernels.cases import needs_cuda, needs_interpreter

MIXES = (SpatialMix, TemporalMix, PublishedTemporalMix)
each_layout = pytest.mark.parametrize("layout", [mix.layout for mix in MIXES])
# T, B, heads, D, N: both orders of the products, sizes that fill no tile, several blocks of tokens.
SIZES = [(4, 1, 2, 16, 64), (3, 2, 3, 5, 49), (2, 1, 2, 32, 17), (1, 1, 2, 4, 3), (3, 1, 2, 3, 66)]

LARGE = [(4, 128, 16, 16, 64), (4, 8, 4, 16, 256), (16, 8, 16, 16, 49)]


def gpu_attention() -> ModuleType:
    """Import the kernel here: a machine without triton skips the tests that need the kernel."""
    return import_module("avsnn.models.kernels.gpu_attention")


def drawn(size: tuple[int, ...], layout: str) -> tuple[Tensor, AttentionSpec]:
    """Return query, key and value, ``[3, T, B, C, N]``, for which neurons fire often."""
    T, B, heads, D, N = size
    length = N if layout == "tokens" else T
    # The current of a neuron is the density cubed, times D * L / 4, in the mean.
    density = min(0.9, (6 / (D * length)) ** (1 / 3))
    dice = torch.Generator().manual_seed(1)
    spikes = (torch.rand(3, T, B, heads * D, N, generator=dice) < density).float()
    return spikes, AttentionSpec(heads, layout, 2.0, 1.0, 4.0)


def compare_with_plain_torch(spikes: Tensor, spec: AttentionSpec) -> None:
    kernels = gpu_attention()
    assert kernels.fits(spikes[0], spec)
    due, count, packed = attention_products.attend_fire(*spikes, spec)
    if due.numel() > 1000:
        assert 0.02 < due.mean() < 0.98
    ours, counted, saved = kernels.attend_fire(*spikes, spec)
    assert torch.equal(ours, due)
    assert torch.equal(saved, packed)
    assert counted.tolist() == count.tolist() == [due.sum(), due.numel()]
    grad = torch.randn_like(due)
    theirs = attention_products.attend_fire_backward(grad.double(), packed, spec)
    for got, gradient in zip(kernels.attend_fire_backward(grad, saved, spec), theirs, strict=True):
        torch.testing.assert_close(got.double(), gradient, rtol=1e-5, atol=1e-5)


@needs_interpreter
@each_layout
@pytest.mark.parametrize("size", SIZES)
def test_the_triton_kernel_gives_spikes_and_gradients_of_plain_torch(size, layout):
    compare_with_plain_torch(*drawn(size, layout))


@needs_cuda
@each_layout
@pytest.mark.parametrize(
    "size", [*SIZES, (4, 128, 16, 16, 64), (4, 8, 4, 16, 256), (16, 8, 16, 16, 49)]
)
def test_the_kernel_on_a_gpu_gives_spikes_and_gradients_of_plain_torch(size, layout):
    spikes, spec = drawn(size, layout)
    compare_with_plain_torch(spikes.cuda(), spec)


@needs_interpreter
@each_layout
def test_the_triton_kernel_takes_bfloat16_and_gives_its_gradients_in_bfloat16(layout):
    kernels = gpu_attention()
    spikes, spec = drawn((2, 1, 2, 8, 16), layout)
    ours, _, packed = kernels.attend_fire(*spikes.bfloat16(), spec)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours.float(), attention_products.attend_fire(*spikes, spec)[0])
    grad = torch.randn_like(ours)
    theirs = attention_products.attend_fire_backward(grad.float(), packed, spec)
    for got, due in zip(kernels.attend_fire_backward(grad, packed, spec), theirs, strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), due, rtol=1e-2, atol=1e-2)


@needs_interpreter
@pytest.mark.parametrize("mix", [SpatialMix, PublishedTemporalMix])
def test_a_triton_layer_gives_the_same_with_one_kernel_and_with_a_hook_between_two(mix):
    torch.manual_seed(0)
    layer = SpikingAttention(
        channels=16, heads=2, neuron=LIF, norm=nn.Identity(), lif=LIF(threshold=0.25), mix=mix()
    )
    for part in (layer.query, layer.key, layer.value):
        nn.init.constant_(part.norm.bias, 1.0)
    own, other = (torch.rand(2, 2, 1, 16, 3) < 0.5).float()
    seen = []
    results = []
    for watch in (False, True):
        handle = layer.lif.register_forward_hook(lambda *a: seen.append(a)) if watch else None
        x, y = own.clone().requires_grad_(), other.clone().requires_grad_()
        spikes = layer(x, y)
        layer.zero_grad()
        spikes.backward(torch.linspace(-1, 1, spikes.numel()).view(spikes.shape))
        results.append((spikes, x.grad, y.grad, layer.query.conv.weight.grad.clone()))
        if handle is not None:
            handle.remove()
    assert len(seen) == 1
    assert seen[0][2].mean() > 0.01
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    assert torch.equal(results[0][0], results[1][0])


@pytest.mark.parametrize("mix", MIXES)
def test_the_operator_in_plain_torch_gives_what_attention_and_neurons_give(mix):
    spikes, spec = drawn((3, 2, 4, 4, 9), mix.layout)
    lif = LIF(threshold=0.5)
    spec = spec._replace(threshold=0.5)
    results = []
    for way in (
        lambda q, k, v: attention_operators.attend_fire(q, k, v, *spec)[0],
        lambda *x: lif(mix()(*(split_heads(features, spec.heads) for features in x))),
    ):
        inputs = [x.clone().requires_grad_() for x in spikes]
        out = way(*inputs)
        out.backward(torch.linspace(-1, 1, out.numel()).view(out.shape))
        results.append((out, *(x.grad for x in inputs)))
    assert 0.05 < results[0][0].mean() < 0.95
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)
    assert torch.equal(results[0][0], results[1][0])


@each_layout
def test_torch_finds_nothing_wrong_with_the_operator_of_attention(layout):
    spikes, spec = drawn((2, 1, 2, 4, 5), layout)
    inputs = [x.clone().requires_grad_() for x in spikes]
    # The tests of gradients need a function with a derivative, and a spike has no derivative.
    kinds = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.avsnn.attend_fire, (*inputs, *spec), test_utils=kinds)


def test_the_operator_of_attention_saves_bytes_and_refuses_a_second_derivative():
    spikes, spec = drawn((2, 1, 2, 4, 5), "tokens")
    query = spikes[0].clone().requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out, _, _ = attention_operators.attend_fire(query, *spikes[1:], *spec)
    assert [tensor.dtype for tensor in saved] == [torch.uint8]
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(out.sum(), query, create_graph=True)


@pytest.mark.long
def test_the_interpreter_runs_the_tests_of_this_file():
    pytest.importorskip("triton")
    chosen = "triton_kernel or triton_layer"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-pno:cacheprovider", "-k", chosen, __file__],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
