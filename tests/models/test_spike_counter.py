import copy

import pytest
import torch
from torch import nn

from avsnn.models.batch_norm import BatchNorm
from avsnn.models.neuron import LIF
from avsnn.models.spike_counter import SpikeCounter, spike_rates


def test_spike_rates_count_every_call_and_leave_nothing_behind():
    model = nn.Sequential(LIF(), nn.Identity(), LIF(threshold=100.0))
    with spike_rates(model) as rates:
        model(torch.full((4, 2, 3), 2.0))
        model(torch.zeros(4, 2, 3))
        assert rates == {}
    assert rates == {"0": 0.5, "2": 0.0}
    assert (rates["0"].spikes, rates["0"].size) == (24, 48)
    assert model[0].tally is None


def test_spike_rates_leave_nothing_behind_after_an_error():
    model = LIF()
    with pytest.raises(RuntimeError, match="stop"), spike_rates(model):
        raise RuntimeError("stop")
    assert model.tally is None


@pytest.mark.parametrize("words", [{}, {"reset": "soft"}, {"learn_tau": True}])
def test_spikes_are_counted_before_pooling_for_every_neuron(words):
    torch.manual_seed(0)
    lif, norm, current = LIF(**words), BatchNorm(3), torch.randn(4, 2, 3, 9, 8) * 3
    seen = []
    for norm_or_none in (norm, None):
        with spike_rates(lif) as rates:
            lif.pooled(current, None, norm_or_none)
        handle = lif.register_forward_hook(lambda _, __, spikes: seen.append(spikes))
        lif.pooled(current, None, norm_or_none)
        handle.remove()
        assert rates[""].spikes == int(seen[-1].sum()) > 0
        assert rates[""].size == current.numel()


def test_a_copy_that_is_made_while_spikes_are_counted_counts_for_itself():
    model = nn.Sequential(LIF())
    with spike_rates(model) as rates:
        copied = copy.deepcopy(model)
        copied(torch.full((4, 2, 3), 2.0))
    assert rates == {}
    with spike_rates(copied) as rates:
        copied(torch.full((4, 2, 3), 2.0))
    assert rates == {"0": 1.0}


def test_two_counters_at_a_time_are_refused():
    model = nn.Sequential(LIF())
    with spike_rates(model), pytest.raises(RuntimeError, match="counted already"):
        SpikeCounter(model).__enter__()
