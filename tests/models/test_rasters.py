"""The recorded spikes of single neurons."""

import pytest
import torch
from torch import nn

from avsnn.models.neuron import LIF
from avsnn.models.rasters import evenly_spread, neuron_spikes
from avsnn.models.spike_counter import SpikeCounter
from tests.models.networks import awake, clips, each_method, small


def test_the_spikes_of_a_clip_are_those_of_its_neurons():
    lif = LIF(threshold=2.0)
    current = torch.zeros(3, 2, 4)
    current[1, 0, 2] = current[2, 0, 0] = 10.0
    current[:, 1] = 10.0
    with neuron_spikes(lif, neurons=4) as recorded:
        lif(current)
    assert recorded[0].spikes.nonzero().tolist() == [[1, 2], [2, 0]]
    with neuron_spikes(lif, neurons=2) as recorded:
        lif(current)
    # The first and the last neuron of four.
    assert recorded[0].spikes.tolist() == [[0, 0], [0, 0], [1, 0]]


@each_method
def test_rasters_hold_every_spike_that_is_counted_and_change_no_result(method):
    model, (audio, visual) = awake(small(method, rpb="learned")).eval(), clips(batch=1)
    with torch.inference_mode():
        plain = model(audio, visual).logits
        with SpikeCounter(model) as counter, neuron_spikes(model, neurons=10**9) as recorded:
            watched = model(audio, visual).logits
    assert torch.equal(watched, plain)
    rates = counter.rates()
    assert [(n, s.sum(), s.numel()) for n, s in sorted(recorded)] == [
        (name, rates[name].spikes, rates[name].size) for name in sorted(rates)
    ]
    assert all(len(layer.spikes) == 4 for layer in recorded)
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_stays_behind_after_an_error():
    model = nn.Sequential(LIF())
    with pytest.raises(RuntimeError, match="stop"), neuron_spikes(model, neurons=1):
        raise RuntimeError("stop")
    assert not model[0]._forward_hooks


@pytest.mark.parametrize(
    ("count", "most", "chosen"),
    [
        (1, 5, [0]),
        (3, 5, [0, 1, 2]),
        (10, 1, [0]),
        (10, 4, [0, 3, 6, 9]),
        (10**9, 2, [0, 10**9 - 1]),
    ],
)
def test_places_are_spread_evenly(count, most, chosen):
    assert evenly_spread(count, most).tolist() == chosen
