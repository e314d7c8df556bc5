"""Networks with the channels innermost in memory: the same results, and no layout copies.

On a CPU the reference stands in for the kernels of GPUs: it computes the same, and the fixture
makes it read and write the memory format of the kernels of GPUs.
"""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from avsnn.models import attention
from avsnn.models.kernels import attention_operators, attention_products, reference
from avsnn.models.losses import LossSettings, training_loss
from avsnn.models.zoo import METHODS

from .networks import CLASSES, awake, clips, small

# Sizes of activations are multiples of the batch, and sizes of parameters are not.
BATCH = 7
COPIES = ("aten::clone", "aten::copy_", "aten::_to_copy", "aten::contiguous")


def channels_innermost(features: Tensor, channel: int = 2) -> Tensor:
    """Return ``features`` with the axis ``channel`` innermost in memory."""
    return features.movedim(channel, -1).contiguous().movedim(-1, channel)


def strides_of(features: Tensor) -> list[int]:
    """Return the strides of the axes that have more than one index."""
    axes = zip(features.stride(), features.shape, strict=True)
    return [stride for stride, size in axes if size > 1]


@pytest.fixture
def converted(monkeypatch, kernels_named) -> list[tuple[int, ...]]:
    """Make the reference keep channels innermost, and compute attention with its neurons.

    Returns:
        shapes of the inputs that had their channels elsewhere.
    """
    kernels_named("torch")
    shapes: list[tuple[int, ...]] = []
    fire, fire_backward = reference.fire, reference.fire_backward

    def planes(tensor: Tensor, channel: int = 2) -> Tensor:
        if strides_of(tensor) != strides_of(channels_innermost(tensor, channel)):
            shapes.append(tuple(tensor.shape))
        return tensor.contiguous()

    def fire_innermost(current, scale, shift, layer):
        spikes, count = fire(planes(current, 1 if layer.constant else 2), scale, shift, layer)
        return channels_innermost(spikes), count

    def fire_backward_innermost(grad, current, scale, shift, centre, layer):
        channel = 1 if layer.constant else 2
        known = (scale, shift, centre, layer)
        out, sums = fire_backward(planes(grad), planes(current, channel), *known)
        return channels_innermost(out, channel), sums

    def attend_fire(query, key, value, spec):
        q, k, v = planes(query), planes(key), planes(value)
        current = attention_products.attend(q, k, v, spec)
        spikes, count = fire(current, None, None, spec.neurons(len(q)))
        return channels_innermost(spikes), count, torch.stack([q, k, v]).to(torch.uint8)

    def attend_fire_backward(grad, packed, spec):
        with monkeypatch.context() as context:
            context.setattr(reference, "fire_backward", fire_backward)
            grads = attention_products.attend_fire_backward(planes(grad), packed, spec)
        return tuple(channels_innermost(gradient) for gradient in grads)

    fused = SimpleNamespace(attend_fire=attend_fire, attend_fire_backward=attend_fire_backward)
    monkeypatch.setattr(reference, "as_input", lambda tensor, *_: tensor)
    monkeypatch.setattr(reference, "fire", fire_innermost)
    monkeypatch.setattr(reference, "fire_backward", fire_backward_innermost)
    for module in (attention, attention_operators):
        monkeypatch.setattr(module, "kernels_for_attention", lambda *_: fused)
    return shapes


class Copies(TorchDispatchMode):
    """Keeps the name and the shape of every copy of a tensor of the size of an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        if name in COPIES and out.numel() % BATCH == 0:
            self.found.append((name, tuple(out.shape)))
        return out


def step(
    model: nn.Module, form: torch.memory_format, copies: Copies | None = None
) -> tuple[Tensor, ...]:
    """Return the logits and all gradients of one step."""
    model.to(memory_format=form)
    model.zero_grad()
    images = [image.double().to(memory_format=form) for image in clips(BATCH)]
    with copies or nullcontext():
        output = model(*images)
        training_loss(output, torch.arange(BATCH) % CLASSES, LossSettings()).total.backward()
    return (output.logits, *(parameter.grad for parameter in model.parameters()))


NETWORKS = [
    *({"method": method} for method in METHODS),
    {"attention": "spatial", "query": "other"},
    {"attention": "temporal", "temporal_layout": "corrected", "alignment": False},
    {"attention_norm": True, "alignment_norm": True},
]


@pytest.fixture(params=NETWORKS, ids=lambda fields: "-".join(map(str, fields.values())))
def network(request) -> nn.Module:
    # In float64 no sum is rounded so differently that another neuron fires.
    return awake(small(**{"rpb": "learned"} | request.param)).double()


def test_a_network_computes_the_same_with_the_channels_innermost(network, request):
    due = step(network, torch.contiguous_format)
    request.getfixturevalue("converted")
    torch.testing.assert_close(step(network, torch.channels_last), due, rtol=1e-9, atol=1e-12)


def test_s_cmrl_copies_no_activation_with_the_channels_innermost(converted):
    copies = Copies()
    step(awake(small()).double(), torch.channels_last, copies)
    assert copies.found == []
    assert converted == []
