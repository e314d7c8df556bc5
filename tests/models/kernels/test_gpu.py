"""The kernels for GPUs: in Triton's interpreter, as compiled code, and on a GPU if there is one."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from avsnn.models.batch_norm import BatchNorm
from avsnn.models.kernels import kernels_for, operators, reference
from avsnn.models.kernels.layer_spec import LayerSpec
from avsnn.models.neuron import LIF
from tests.models.kernels.cases import layers, needs_cuda, needs_interpreter

EPS = 1e-5
# Steps; batch, channels and sides: more than eight steps, more channels than one tile has, and
# images of which windows hang over every edge.
SHAPES = [
    pytest.param(4, (2, 5, 5, 6), True, id="odd and even sides"),
    pytest.param(9, (1, 2, 1, 1), True, id="one pixel, nine steps"),
    pytest.param(1, (1, 33, 2, 3), True, id="one step, 33 channels"),
    pytest.param(9, (1, 40, 17), False, id="tokens, nine steps"),
    pytest.param(1, (2, 3, 1), False, id="one token, one step"),
]


def gpu() -> ModuleType:
    """Import the kernels here: a machine without triton skips the tests that need the kernels."""
    return import_module("avsnn.models.kernels.gpu")


def compare_with_reference(layer, current, scale, shift, scaled):
    """Compare everything that the kernels give for a layer with the reference in float32.

    ``scale`` and ``shift`` also serve as weight and bias of a batch norm.
    """
    kernels = gpu()
    known = (scale, shift) if scaled else (None, None)
    x = kernels.as_input(current, layer.channel if scaled or layer.pooled else None)
    spikes, count = kernels.fire(x, *known, layer)
    due, due_count = reference.fire(current.float(), *known, layer)
    assert torch.equal(spikes.float(), due)
    assert torch.equal(count, due_count)
    grad = torch.randn_like(due).to(current.dtype)
    # Gradients of the current have the dtype of the current.
    rtol, atol = (1e-5, 1e-5) if current.dtype == torch.float32 else (1e-2, 1e-2)
    if not scaled:
        ours = kernels.current_gradient(grad, x, layer)
        theirs = reference.current_gradient(grad.float(), current.float(), layer)
        torch.testing.assert_close(ours.float(), theirs, rtol=rtol, atol=atol)
        return
    statistics = kernels.norm(x, scale, shift, EPS, layer)
    expected = reference.norm(current.double(), scale.double(), shift.double(), EPS, layer)
    torch.testing.assert_close(statistics.double(), expected, rtol=1e-5, atol=1e-5)
    assert (statistics[1] >= 0).all()
    grad = kernels.as_input(grad, 2)
    ours, *sums = kernels.norm_fire_backward(grad, x, statistics, EPS, layer)
    theirs, *due_sums = reference.norm_fire_backward(
        grad.float().contiguous(), current.float(), statistics, EPS, layer
    )
    atol *= max(1.0, float(statistics[2].max()))
    torch.testing.assert_close(ours.float(), theirs, rtol=rtol, atol=atol)
    torch.testing.assert_close(sums, due_sums, rtol=1e-4, atol=1e-3)


@needs_interpreter
@pytest.mark.parametrize("scaled", [False, True], ids=["as it is", "normalised"])
@pytest.mark.parametrize("constant", [False, True], ids=["", "constant"])
@pytest.mark.parametrize(("steps", "shape", "pooled"), SHAPES)
def test_kernels_in_triton_agree_with_the_reference(steps, shape, pooled, constant, scaled):
    layer = LayerSpec(steps, constant, pooled, 2.0, 1.0, 4.0)
    generator = torch.Generator().manual_seed(steps)
    current = torch.randn(shape if constant else (steps, *shape), generator=generator) * 2 + 0.5
    scale, shift = torch.rand(2, shape[1], generator=generator).unbind()
    # Half of the cases are in bfloat16, and half of the cases have potentials on the threshold.
    current = current.bfloat16() if constant == pooled else (current * 2).round() / 2
    compare_with_reference(layer, current, scale + 0.5, shift, scaled)


@needs_interpreter
@settings(max_examples=6, deadline=None)
@given(layers(), st.booleans())
def test_kernels_in_triton_agree_with_the_reference_on_drawn_layers(case, scaled):
    before = gpu().gpu_pooling.ROWS
    try:
        # The interpreter needs as long for a large tile as for a small one.
        gpu().gpu_pooling.ROWS = 64
        compare_with_reference(*case, scaled)
    finally:
        gpu().gpu_pooling.ROWS = before


@needs_cuda
@settings(max_examples=150, deadline=None)
@given(layers(), st.booleans(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_kernels_on_a_gpu_agree_with_the_reference(case, scaled, kind):
    layer, current, scale, shift = case
    compare_with_reference(layer, current.to(kind).cuda(), scale.cuda(), shift.cuda(), scaled)


@needs_interpreter
@pytest.mark.parametrize("value", [0.0, 1e4 + 1 / 3])
def test_the_variance_of_equal_values_in_triton_is_not_negative(value):
    layer = LayerSpec(2, False, False, 2.0, 1.0, 4.0)
    current = torch.full((2, 3, 2, 41), value)
    current[0, 0] += torch.linspace(0, 1e-3, 41)
    statistics = gpu().norm(gpu().as_input(current, 2), torch.ones(2), torch.zeros(2), EPS, layer)
    due = reference.moments(current.double().flatten(0, 1))
    assert (statistics[1] >= 0).all()
    torch.testing.assert_close(statistics[:2].double(), due, rtol=1e-6, atol=1e-6)


@needs_interpreter
@pytest.mark.parametrize("arranged", [False, True], ids=["contiguous", "channels innermost"])
@pytest.mark.parametrize("steps", [None, 2])
def test_operators_in_triton_keep_channels_innermost(steps, arranged):
    shape = (2, 5, 4, 3) if steps else (2, 2, 5, 4, 3)
    x = torch.randn(shape)
    x = (gpu().as_input(x, -3 % x.dim()) if arranged else x).requires_grad_()
    weight, bias = torch.rand(5, requires_grad=True), torch.rand(5, requires_grad=True)
    rest = (2, steps is not None, True, 2.0, 1.0, 4.0)
    assert kernels_for(x) is gpu()
    spikes, _, _ = operators.norm_fire(x, weight, bias, EPS, *rest)
    assert spikes.movedim(2, -1).is_contiguous()
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    assert grad.movedim(-3, -1).is_contiguous()
    # torch compares shapes, strides and dtypes with those that the operator declares.
    for operator, known in (
        (torch.ops.avsnn.norm_fire, (x, weight, bias, EPS, *rest)),
        (torch.ops.avsnn.fire, (x, None, None, *rest)),
        (torch.ops.avsnn.fire, (x, None, None, *rest[:2], False, *rest[3:])),
        (torch.ops.avsnn.fire, (x.detach(), weight, bias, *rest)),
    ):
        torch.library.opcheck(operator, known, test_utils="test_faketensor")


@needs_interpreter
def test_running_statistics_in_triton_move_as_those_of_the_reference():
    ours = [torch.rand(300), torch.rand(300), torch.tensor(3)]
    theirs = [values.clone() for values in ours]
    known = (torch.randn(300), torch.rand(300), 0.1, 1.25)
    gpu().move_statistics(*ours, *known)
    reference.move_statistics(*theirs, *known)
    torch.testing.assert_close(ours, theirs)


def compiled_size(kernel, kind: str, arch: int, **flags: object) -> tuple[int, int, int]:
    """Compile a kernel.

    Returns:
        the registers of a thread; the bytes of spilled registers; and the number of times that a
        loop exchanges potentials or currents between threads, because two operations want them in
        different threads.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {
        **dict.fromkeys(("x", "grad", "out", "pooled"), f"*{kind}"),
        **dict.fromkeys(("weight", "bias", "scale", "shift", "statistics", "sums"), "*fp32"),
        **dict.fromkeys(("factors", "grad_weight", "grad_bias", "mean", "variance"), "*fp32"),
        **dict.fromkeys(("running_mean", "running_variance"), "*fp32"),
        **dict.fromkeys(("rate", "threshold", "slope", "eps", "momentum", "unbiased"), "fp32"),
        "winners": "*i8",
        "bits": "*u8",
        "counts": "*i32",
        "batches": "*i64",
    }
    if flags.get("PACKED"):
        types["out"] = "*u8"
    signature = {p.name: types.get(p.name, "i32") for p in kernel.params}
    signature |= dict.fromkeys(flags, "constexpr")
    aligned = {
        (p.num,): [["tt.divisibility", 16]]
        for p in kernel.params
        if signature[p.name].startswith("*")
        or (signature[p.name] == "i32" and not p.do_not_specialize)
    }
    source = ASTSource(kernel, signature, constexprs=flags, attrs=aligned)
    target = GPUTarget("cuda", arch, 32)
    compiled = triton.compile(source, target, {"enable_fp_fusion": False})
    exchanges = re.findall(r"(?m)^ {6}.*convert_layout .*x32x", compiled.asm["ttgir"])
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    path = Path(os.environ["TRITON_CACHE_DIR"]) / "kernel.cubin"
    path.write_bytes(compiled.asm["cubin"])
    done = subprocess.run(
        [tools / "cuobjdump", "-res-usage", path], capture_output=True, text=True, check=True
    )
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", done.stdout)
    assert found is not None, done.stdout
    registers, stack, local = map(int, found.groups())
    return registers, stack + local, len(exchanges)


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    ("arch", "kind"), [(90, "fp32"), (90, "bf16"), (80, "fp32")], ids=["sm_90", "bf16", "sm_80"]
)
def test_compiled_kernels_fit_into_registers(arch, kind, tmp_path, monkeypatch):
    """A thread with more than 64 registers leaves less than half of the threads of a GPU to run."""
    pytest.importorskip("triton", minversion="3.3")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    neurons, pooling, norm = gpu().gpu_neurons, gpu().gpu_pooling, gpu().gpu_norm
    tile = {"ROWS": neurons.ROWS, "COLUMNS": neurons.COLUMNS}
    windows = {"ROWS": pooling.ROWS, "COLUMNS": pooling.COLUMNS}
    block = {"BLOCK": norm.BLOCK}
    steps = {"STEPS": neurons.STEPS_PER_BYTE}
    kernels = [
        (neurons.fire_tiles, {"SCALED": True, "PACKED": False, **steps, **tile}),
        (neurons.fire_tiles, {"SCALED": True, "PACKED": True, **steps, **tile}),
        (neurons.sum_gradients, tile),
        (neurons.write_gradients, {"NORM": True, "CONSTANT": False, **tile}),
        (pooling.pool_bytes, {**steps, **windows, "ROWS": pooling.POOL_ROWS}),
        (pooling.sum_pooled_gradients, {"NORM": True, **windows}),
        (pooling.write_pooled_gradients, {"NORM": True, "CONSTANT": False, **windows}),
        (pooling.write_pooled_gradients, {"NORM": True, "CONSTANT": True, **windows}),
        (norm.sum_moments, {"ROWS": norm.ROWS, "COLUMNS": norm.COLUMNS}),
        (norm.finish_moments, block),
        (norm.finish_gradients, block),
    ]
    sizes = {
        (kernel.__name__, str(flags)): compiled_size(kernel, kind, arch, **flags)
        for kernel, flags in kernels
    }
    for size in sizes.values():
        assert size <= (64, 0, 0), sizes
        assert size[1:] == (0, 0), sizes


@needs_cuda
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_cuda_graph_holds_a_layer_forward_and_backward(kind, pooled):
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.lif = BatchNorm(8), LIF()

        def forward(self, current: torch.Tensor) -> torch.Tensor:
            return (self.lif.pooled if pooled else self.lif)(current, None, self.norm)

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


@needs_cuda
@pytest.mark.parametrize("pooled", [False, True])
def test_places_in_memory_have_more_than_31_bits(pooled):
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("needs 40 GiB of free memory on the GPU")
    layer = LayerSpec(3, False, pooled, 1.0, 1.0, 4.0)
    memory = torch.zeros(3, 1, 4096, 4096, 64, device="cuda", dtype=torch.bfloat16)
    memory[2, 0, 4094:, 4094:] = 2.0
    current = memory.movedim(-1, 2)
    assert current.numel() > 2**31
    one = torch.ones(64, device="cuda")
    spikes, count = gpu().fire(current, one, 0 * one, layer)
    assert count.tolist() == [4 * 64, current.numel()]
    # The bottom right window reaches one row and one column into the windows before.
    corner = spikes[2, 0, :, -2:, -2:].float()
    assert corner.sum() == spikes.sum(dtype=torch.float32) == (64 if pooled else 4 * 64)
    grad = torch.zeros_like(spikes)
    grad[2, 0, :, -1, -1] = 1.0
    statistics = torch.stack([0 * one, one, one, 0 * one])
    back, _, bias = gpu().norm_fire_backward(grad, current, statistics, EPS, layer)
    e = torch.exp(torch.tensor(-4.0))
    torch.testing.assert_close(bias, (4 * e / (1 + e) ** 2).cuda().expand(64), rtol=1e-4, atol=0)
    assert back[2, 0, :, -2:, -2:].float().abs().amax((1, 2)).min() > 0.05
    assert back[2, 0, :, :-2].abs().max() < 1e-3


@needs_cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_network_on_another_gpu_than_the_current_one_computes_there():
    current = torch.randn(4, 2, 8, 16, 16)
    norm, lif = BatchNorm(8), LIF()
    first = lif.pooled(current.to("cuda:0"), None, norm.to("cuda:0"))
    second = lif.pooled(current.to("cuda:1"), None, norm.to("cuda:1"))
    assert second.device == torch.device("cuda:1")
    assert torch.equal(first.cpu(), second.cpu())


@pytest.mark.long
def test_triton_is_tested_by_its_interpreter():
    pytest.importorskip("triton")
    chosen = "in_triton or (logits and auto and uni_visual and eval)"
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
            __file__,
            golden,
        ],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
