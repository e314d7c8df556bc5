"""A NIR file, read back and run by a small interpreter, must give the spikes of our network."""

import io
import json
from typing import Any

import nir
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from avsnn.errors import UserError
from avsnn.models.attention import SpikingAttention
from avsnn.models.fusion_learned import StepAttention
from avsnn.models.kernels.attention_products import split_heads
from avsnn.models.plain_network import plain_operations, recorded_spikes
from avsnn.pipeline.export.nir_file import nir_files
from avsnn.pipeline.export.run_network import RunNetwork
from tests.models.golden import golden
from tests.models.networks import each_method

from .networks import logits_of, recorded, small_network

# Spikes of some millions that may differ.
FEW = 5

COMPLETE = ("add", "concat", "cmci")


def run_lif(node: nir.LIF, current: Tensor) -> Tensor:
    """Run neurons by the equations of NIR, with dt of one step and equality that fires."""
    tau, r, leak, threshold, reset = (
        torch.from_numpy(x) for x in (node.tau, node.r, node.v_leak, node.v_threshold, node.v_reset)
    )
    v = torch.zeros_like(current[0])
    train = []
    for x in current:
        v = v + (leak - v + r * x) / tau
        spikes = v >= threshold
        v = torch.where(spikes, reset, v)
        train.append(spikes.float())
    return torch.stack(train)


def run_node(node: Any, x: Tensor) -> Tensor:
    """Compute one node on ``[T, B, ...]``."""
    if isinstance(node, nir.LIF):
        return run_lif(node, x)
    if isinstance(node, nir.Flatten):
        assert node.end_dim == -1
        return x.flatten(2 + int(node.start_dim))
    if isinstance(node, nir.Threshold):
        return (x > torch.from_numpy(node.threshold)).float()
    if isinstance(node, nir.Scale):
        return x * torch.from_numpy(node.scale)
    if isinstance(node, (nir.Linear, nir.Affine)):
        bias = torch.from_numpy(node.bias) if isinstance(node, nir.Affine) else None
        return functional.linear(x, torch.from_numpy(node.weight), bias)
    if isinstance(node, (nir.Input, nir.Output)):
        return x
    frames = x.flatten(0, 1)
    if isinstance(node, nir.SumPool2d):
        kernel, stride, padding = (
            tuple(map(int, side)) for side in (node.kernel_size, node.stride, node.padding)
        )
        out = functional.avg_pool2d(frames, kernel, stride, padding, divisor_override=1)
    else:
        convolve = functional.conv2d if isinstance(node, nir.Conv2d) else functional.conv1d
        padding = tuple(np.atleast_1d(node.padding).tolist())
        out = convolve(
            frames, torch.from_numpy(node.weight), torch.from_numpy(node.bias), 1, padding, 1,
            int(node.groups),
        )  # fmt: skip
    return out.unflatten(0, x.shape[:2])


def answer_missing(network: RunNetwork, name: str, operands: list[Tensor]) -> Tensor:
    """Compute an operation that NIR lacks with the module of our network."""
    if isinstance(getattr(network.model, "fusion", None), StepAttention):
        return getattr(network.model.fusion(*operands), name.removeprefix("fusion."))
    module = network.model.get_submodule(name)
    if name.endswith(".mix"):
        attention = network.model.get_submodule(name.removesuffix(".mix"))
        assert isinstance(attention, SpikingAttention)
        operands = [split_heads(x, attention.heads) for x in operands]
        return module(*operands)
    if type(module).__name__ == "SpatioTemporalAttention":
        spatial, temporal = operands
        return spatial.mean(-1, keepdim=True) * temporal.mean(0)
    return module(*operands)


def interpret(
    graph: nir.NIRGraph, about: dict[str, Any], network: RunNetwork, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the output ``[T, B, ...]`` of every node."""
    found = dict(inputs)
    into: dict[str, list[str]] = {}
    for source, target in graph.edges:
        into.setdefault(target, []).append(source)
    missing = {one["writes"]: one for one in about["missing"]}
    waiting = [name for name in graph.nodes if name not in found]
    torch.manual_seed(network.description.seed)
    while waiting:
        for name in list(waiting):
            needed = missing[name]["reads"] if name in missing else into[name]
            if not found.keys() >= set(needed):
                continue
            operands = [found[source] for source in needed]
            if name in missing:
                found[name] = answer_missing(network, missing[name]["name"], operands)
            else:
                found[name] = run_node(graph.nodes[name], sum(operands[1:], operands[0]))
            waiting.remove(name)
            break
        else:
            raise AssertionError(f"these nodes cannot be computed: {waiting}")
    return found


def check(network: RunNetwork, inputs: list[Tensor]) -> dict[str, Any]:
    """Compare all spikes and logits; return the JSON file beside the graph."""
    files, _ = nir_files(network, "model.nir")
    about = json.loads(files["model.nir.json"])
    graph = nir.read(io.BytesIO(files["model.nir"]))
    steps = network.description.settings.steps
    named = {
        one.name: images if images.dim() == 5 else images.expand(steps, *images.shape)
        for one, images in zip(network.description.inputs, inputs, strict=True)
    }
    with plain_operations(), recorded_spikes(network.model) as ours:
        logits = logits_of(network, inputs)
    with plain_operations():
        theirs = interpret(graph, about, network, named)
    # The neurons between the two products of SCA belong to a missing operation. The MLPs of CMCI's
    # two streams add to its auxiliary scores only.
    assert len(ours.keys() - theirs.keys()) <= 4
    flipped = sum(
        int((spikes != theirs[layer]).sum()) for layer, spikes in ours.items() if layer in theirs
    )
    # A folded weight is rounded once more, so a potential beside its threshold may cross it.
    assert flipped <= FEW
    assert torch.allclose(theirs["logits"].mean(0), logits, atol=0.01 if flipped else 1e-5)
    return about


@pytest.mark.parametrize("name", ["spatialtemporal", "cmci", "sca", "shallow_spatialtemporal"])
def test_the_graph_gives_our_spikes_and_names_what_it_leaves_out(name: str) -> None:
    network, inputs = recorded(golden(name))
    about = check(network, inputs)
    assert about["complete"] == (network.description.settings.method in COMPLETE)


@each_method
def test_every_method_is_exported_as_far_as_nir_goes(method: str) -> None:
    about = check(*small_network(method))
    assert about["complete"] == (method in COMPLETE)


def test_norms_on_tokens_and_learned_time_constants_are_part_of_the_graph() -> None:
    check(*small_network("s-cmrl", attention_norm=True, alignment_norm=True, learn_tau=True))
    check(*small_network("s-cmrl", query="other", alignment=False, attention="spatial"))


def test_a_soft_reset_is_refused_with_one_sentence() -> None:
    network, _ = small_network("add", reset="soft")
    with pytest.raises(UserError, match="hard reset only"):
        nir_files(network, "model.nir")


def test_the_same_network_gives_the_same_bytes() -> None:
    network, _ = small_network("s-cmrl")
    assert nir_files(network, "model.nir") == nir_files(network, "model.nir")
