"""Every kernel against the oracle, and the oracle against autograd through plain layers."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from avsnn.models import kernels
from avsnn.models.kernels import cpu, oracle
from avsnn.models.kernels.layer import Layer
from avsnn.models.layers import BatchNorm, SpikeConv1d, SpikeConv2d
from avsnn.models.neuron import LIF
from tests.models.conftest import CPU, needs_compiler

needs_interpreter = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" or find_spec("triton") is None,
    reason="needs TRITON_INTERPRET=1: test_triton_is_tested_by_its_interpreter sets it",
)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def named(name: str) -> ModuleType:
    """Kernels by the name of their file."""
    return import_module(f"avsnn.models.kernels.{name}")


@st.composite
def layers(draw: st.DrawFn) -> tuple[Layer, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A layer with a current, scale and shift for it; some potentials lie on the threshold."""
    pooled = draw(st.booleans())
    layer = Layer(
        steps=draw(st.integers(1, 6)),
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


@needs_compiler
@settings(max_examples=150, deadline=None)
@given(layers(), st.booleans())
def test_kernels_in_c_give_the_spikes_and_gradients_of_the_oracle(case, scaled):
    hold_against_the_oracle(cpu, case, scaled)


@needs_interpreter
@settings(max_examples=8, deadline=None)
@given(layers(), st.booleans())
def test_kernels_in_triton_give_the_spikes_and_gradients_of_the_oracle(case, scaled):
    hold_against_the_oracle(named("gpu"), case, scaled)


@needs_cuda
@settings(max_examples=150, deadline=None)
@given(layers(), st.booleans())
def test_kernels_on_a_gpu_give_the_spikes_and_gradients_of_the_oracle(case, scaled):
    layer, *tensors = case
    on_gpu = (layer, *(tensor.cuda() for tensor in tensors))
    hold_against_the_oracle(named("gpu"), on_gpu, scaled)


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


def hold_against_the_oracle(kernels, case, scaled):
    layer, current, scale, shift = case
    known = (scale, shift) if scaled else (None, None)
    spikes = oracle.fire(current, *known, layer)
    assert torch.equal(kernels.fire(current, *known, layer), spikes)
    grad = torch.randn_like(spikes)
    ours, sums = kernels.fire_backward(grad, current, *known, shift, layer)
    theirs, due = oracle.fire_backward(
        *(x if x is None else x.double() for x in (grad, current, *known, shift)), layer
    )
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sums.double(), due, rtol=1e-5, atol=1e-4)


@needs_compiler
def test_the_surrogate_in_c_is_right_far_from_the_threshold_too():
    layer = Layer(1, False, False, tau=1.0, threshold=1.0, slope=4.0)
    current = torch.linspace(-60, 60, 4001).view(1, 1, 1, -1)
    ours, _ = cpu.fire_backward(torch.ones_like(current), current, None, None, None, layer)
    # as an even function, since 1 - sigmoid loses all digits above the threshold
    e = torch.exp(-4 * (current.double() - 1).abs())
    theirs = 4 * e / (1 + e) ** 2
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-36)


@pytest.mark.parametrize(
    "kernels",
    [pytest.param("cpu", marks=needs_compiler), pytest.param("gpu", marks=needs_interpreter)],
    ids=["c", "triton"],
)
@pytest.mark.parametrize("shape", [(4, 3, 64), (2, 5, 9, 7), (1, 1, 1), (3, 2, 1000)])
def test_statistics_are_those_of_the_oracle_in_double_precision(kernels, shape):
    current = torch.randn(shape) * 3 + 100
    torch.testing.assert_close(
        named(kernels).moments(current).double(),
        oracle.moments(current.double()),
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
    oracle.norm_backward(due, current, a, b, c)
    named(kernels).norm_backward(grad, current, a, b, c)
    torch.testing.assert_close(grad, due)


@needs_interpreter
def test_kernels_in_triton_take_bfloat16_as_it_is():
    gpu = named("gpu")
    layer = Layer(3, False, True, 2.0, 1.0, 4.0)
    current = (torch.randn(3, 2, 4, 9, 8) * 2).bfloat16()
    scale, shift = torch.rand(4) + 0.5, torch.randn(4)
    spikes = gpu.fire(current, scale, shift, layer)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), oracle.fire(current.float(), scale, shift, layer))
    grad = torch.randn_like(spikes)
    ours, sums = gpu.fire_backward(grad, current, scale, shift, shift, layer)
    theirs, due = oracle.fire_backward(grad.float(), current.float(), scale, shift, shift, layer)
    torch.testing.assert_close(ours.float(), theirs, rtol=2e-2, atol=1e-2)
    torch.testing.assert_close(sums, due, rtol=2e-2, atol=1e-1)


@pytest.mark.long
def test_triton_is_tested_by_its_interpreter():
    pytest.importorskip("triton")
    chosen = "kernels_in_triton or ((statistics or put_together) and triton)"
    chosen += " or (logits and auto and uni_visual and eval)"
    golden = Path(__file__).with_name("test_golden.py")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n0",
            "-pno:cacheprovider",
            "-k",
            chosen,
            __file__,
            golden,
        ],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@needs_compiler
def test_threads_change_no_bit():
    current = torch.randn(4, 8, 16, 40, 40)
    layer = Layer(4, False, True, 2.0, 1.0, 4.0)
    scale, shift = torch.rand(16) + 0.5, torch.randn(16)
    before = torch.get_num_threads()

    def everything() -> list[torch.Tensor]:
        spikes = cpu.fire(current, scale, shift, layer)
        grad = torch.sin(torch.arange(spikes.numel(), dtype=torch.float32)).view_as(spikes)
        back, sums = cpu.fire_backward(grad, current, scale, shift, shift, layer)
        return [cpu.moments(current.flatten(0, 1)), spikes, back, sums]

    try:
        torch.set_num_threads(1)
        alone = everything()
        torch.set_num_threads(3)
        assert all(map(torch.equal, everything(), alone))
    finally:
        torch.set_num_threads(before)


def plainly(norm: BatchNorm, lif: LIF, current, steps, pooled):
    """T copies, torch's batch norm, the neuron, pooling: layer by layer."""
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
    expected, followed = plainly(norm, lif, current, steps, pooled)
    grad = torch.randn_like(expected)
    for way in (
        lambda x: fire(x, steps, norm),
        lambda x: plainly(norm, lif, x, steps, pooled)[0],
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
    assert sorted(tuple(t.shape) for t in saved) == [(2, 5), (2, 5, 8, 8), (5,), (5,)]


@pytest.mark.parametrize("steps", [None, 3])
def test_torch_finds_nothing_wrong_with_the_operators(steps):
    shape = (2, 3, 4, 5) if steps else (3, 2, 3, 4, 5)
    x = torch.randn(shape, requires_grad=True)
    weight, bias = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    rest = (3, steps is not None, True, 2.0, 1.0, 4.0)
    # what it asks of gradients holds for a function that has them; a spike has none
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


def test_a_machine_without_a_compiler_computes_the_same(tmp_path: Path):
    code = """
import torch
from avsnn.models import kernels
from avsnn.models.neuron import LIF
print(kernels.choose("auto", torch.device("cpu")), int(LIF()(torch.linspace(0, 3, 50), 4).sum()))
"""

    def run(**variables: str) -> str:
        known = os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | variables
        done = subprocess.run(
            [sys.executable, "-c", code], env=known, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    without = run(CC="/nowhere/cc")
    assert without.startswith("torch ")
    if cpu.available(CPU):
        assert run() == without.replace("torch", "cpu")
        # the same again, from the library that was kept
        assert run(PATH="/nowhere") == without.replace("torch", "cpu")


def convolution(inputs: int, outputs: int, axes: int) -> SpikeConv1d | SpikeConv2d:
    """Of spikes, with a bias where the networks have one."""
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
