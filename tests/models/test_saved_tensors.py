"""The bytes that layers save for the backward pass, compared with their docstrings."""

import pytest
import torch
from torch import nn

from avsnn.models.attention import (
    SpatialMix,
    SpatioTemporalAttention,
    SpikingAttention,
    TemporalMix,
)
from avsnn.models.batch_norm import TokenNorm
from avsnn.models.fusion import Alignment
from avsnn.models.fusion_learned import LearnedShare, QKAttention, StepAttention, TokenMask
from avsnn.models.layers import ChannelLinear, SpikingConv1x1, SpikingMLP
from avsnn.models.neuron import LIF
from avsnn.models.patch_split import SpikingConv3x3
from tests.models.conftest import needs_compiler

T, B, C, N = 3, 2, 8, 16
HEADS, D = 2, 4


def saved(module: nn.Module, *inputs: object) -> int:
    """Return the bytes that are saved for backward, without parameters and vectors of channels."""
    own = {parameter.data_ptr() for parameter in module.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # Keep the output, so that no saved tensor reuses memory that another tensor has freed.
        _output = module(*inputs)
    return sum(
        tensor.numel() * tensor.element_size()
        for place, tensor in kept.items()
        if place not in own and tensor.numel() > 16 * C
    )


def features() -> torch.Tensor:
    return torch.randn(T, B, C, N, requires_grad=True)


def floats(channels: int) -> int:
    return 4 * T * B * channels * N


def test_a_1x1_layer_saves_its_input_and_its_sums():
    layer = SpikingConv1x1(inputs=C, outputs=2 * C, bias=False, lif=LIF())
    assert saved(layer, features()) == floats(C + 2 * C)


@needs_compiler
def test_an_mlp_saves_its_hidden_spikes_as_bytes():
    mlp = SpikingMLP(channels=C, ratio=4, neuron=LIF)
    currents, hidden = floats(4 * C + C), floats(4 * C) // 4
    assert saved(mlp, features()) == floats(C) + currents + hidden


def test_a_channel_linear_saves_its_input():
    assert saved(ChannelLinear(inputs=C, outputs=2 * C), features()) == floats(C)


def test_alignment_saves_the_residual_and_its_currents():
    assert saved(Alignment(channels=C, norm=nn.Identity(), lif=LIF()), features()) == floats(2 * C)


def test_a_norm_in_front_of_the_alignment_neurons_saves_its_input_too():
    aligned = Alignment(channels=C, norm=TokenNorm(C), lif=LIF())
    assert saved(aligned, features()) == floats(3 * C)


@needs_compiler
@pytest.mark.parametrize("mix", [SpatialMix(), TemporalMix()])
def test_attention_saves_its_currents_and_bytes_for_spikes(mix):
    attention = SpikingAttention(
        channels=C, heads=HEADS, neuron=LIF, norm=nn.Identity(), lif=LIF(), mix=mix
    )
    own, other = ((features() > 1).float().requires_grad_() for _ in range(2))
    inputs, operands, fired = 3, 3, 1
    assert (
        saved(attention, own, other) == floats(5 * C) + (inputs + operands + fired) * floats(C) // 4
    )


@needs_compiler
def test_a_mask_of_tokens_saves_its_key_its_sums_and_its_spikes():
    mask = TokenMask(heads=HEADS, norm=nn.Identity(), lif=LIF())
    own, other = ((features() > 1).float().requires_grad_() for _ in range(2))
    of_mask = floats(C + 2 * HEADS)
    assert saved(mask, own, other) == of_mask
    layer = QKAttention(channels=C, mask=mask, neuron=LIF, asks_other=False)
    convolved = 3
    assert saved(layer, own, other) == floats(3 * C) + convolved * floats(C) // 4 + of_mask


def test_learned_shares_and_weights_of_steps_save_what_they_multiply():
    assert saved(LearnedShare(channels=C), features()) == floats(C)
    assert saved(StepAttention(channels=C), features(), features()) == floats(2 * C)


def test_the_product_of_two_attentions_keeps_their_means_and_neither_whole():
    spatial, temporal = (
        SpikingAttention(
            channels=C, heads=HEADS, neuron=LIF, norm=nn.Identity(), lif=LIF(), mix=mix
        )
        for mix in (SpatialMix(), TemporalMix())
    )
    own, other = ((features() > 1).float().requires_grad_() for _ in range(2))
    alone = saved(spatial, own, other) + saved(temporal, own, other)
    over_steps = 4 * B * C * N
    together = saved(SpatioTemporalAttention(spatial=spatial, temporal=temporal), own, other)
    assert alone < together <= alone + over_steps


def test_a_stage_saves_its_input_and_its_currents_with_or_without_pooling():
    frames = torch.randn(T, B, C, 8, 8, requires_grad=True)
    stage = SpikingConv3x3(inputs=C, outputs=C, of_spikes=False, pooled=True, lif=LIF())
    plane = 4 * B * C * 8 * 8
    assert saved(stage, frames, T) == T * (plane + plane)
    assert saved(stage, frames[0], T) == plane + plane
    stage.pooled = False
    assert saved(stage, frames, T) == T * (plane + plane)
