import pytest
import torch
from torch import nn

from avsnn.models.neuron import LIF
from avsnn.models.spike_counter import spike_rates


def test_spike_rates_count_every_call_and_leave_no_hook():
    model = nn.Sequential(LIF(), nn.Identity(), LIF(threshold=100.0))
    with spike_rates(model) as rates:
        model(torch.full((4, 2, 3), 2.0))
        model(torch.zeros(4, 2, 3))
        assert rates == {}
    assert rates == {"0": 0.5, "2": 0.0}
    assert (rates["0"].spikes, rates["0"].size) == (24, 48)
    assert not any(module._forward_hooks for module in model.modules())


def test_spike_rates_leave_no_hook_after_an_error():
    model = LIF()
    with pytest.raises(RuntimeError, match="stop"), spike_rates(model):
        raise RuntimeError("stop")
    assert not model._forward_hooks
