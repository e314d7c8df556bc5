"""Footprint, sparsity and operations by the rules of NeuroBench: by hand, and by NeuroBench."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from avsnn.models.energy import count_parameters
from avsnn.models.layers import ChannelLinear
from avsnn.models.neurobench_rules import SynapticCounter, connection_sparsity, footprint
from avsnn.models.neuron import LIF
from avsnn.models.spike_counter import SpikeCounter
from tests.models.networks import awake, each_method, small


def counted(layer: nn.Module, *batches: torch.Tensor):
    with SynapticCounter(layer) as counter, torch.inference_mode():
        for values in batches:
            layer(values)
    return counter.operations(sum(len(values) for values in batches))


def test_padding_is_no_operation_and_zeros_cost_nothing():
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 0, 0] = image[0, 0, 1, 1] = 1.0
    # Of the 9 windows, 4 see each corner, 6 each edge and 9 the middle: 4 * 4 + 4 * 6 + 9 = 49.
    assert counted(nn.Conv2d(1, 2, 3, padding=1), image) == (2 * 49, 0, 2 * (4 + 9))


def test_a_zero_weight_costs_nothing_but_is_dense():
    layer = nn.Linear(3, 5)
    layer.weight.data[:2] = 0.0
    rows = torch.tensor([[0.5, 0.0, -2.0], [0.0, 0.0, 3.0]])
    assert counted(layer, rows) == (15, 3 * 3 / 2, 0)


@pytest.mark.parametrize(
    ("value", "spikes"), [(1.0, True), (-1.0, True), (0.0, True), (2.0, False)]
)
def test_spikes_are_minus_one_zero_and_one(value, spikes):
    operations = counted(nn.Linear(2, 1), torch.tensor([[1.0, value]]))
    assert operations[1:] == ((0, 1 + (value != 0)) if spikes else (2, 0))


def test_the_inputs_of_all_batches_decide_together():
    layer, first, second = nn.Linear(2, 1), torch.ones(1, 2), torch.full((1, 2), 2.0)
    assert counted(layer, first, second) == counted(layer, torch.cat([first, second])) == (2, 2, 0)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"groups": 2}, {"dilation": 2}])
def test_convolutions_are_counted_as_if_one_by_one(options):
    conv = nn.Conv2d(4, 6, 3, padding=1, bias=False, **options)
    conv.weight.data[torch.rand(conv.weight.shape) < 0.3] = 0.0
    image = torch.rand(2, 4, 7, 5).lt(0.4).float()
    operations = counted(conv, image)
    conv.weight.data = (conv.weight != 0).float()
    assert operations.effective_acs == conv(image).sum() / 2
    nn.init.ones_(conv.weight)
    assert operations.dense == conv(torch.ones_like(image)).sum() / 2


def test_layers_along_channels_count_every_token():
    tokens = torch.rand(4, 3, 8, 5).lt(0.4).float()
    with SynapticCounter(layer := ChannelLinear(inputs=8, outputs=6)) as counter:
        layer(tokens)
    assert counter.operations(3) == (4 * 8 * 5 * 6, 0, int(tokens.sum()) * 6 / 3)


def test_the_footprint_holds_weights_and_buffers():
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3))
    # 6 + 3 weights; 4 vectors of the batch norm; its number of batches has 8 bytes.
    assert footprint(model) == 4 * (9 + 12) + 8


class Joined(nn.Module):
    """A network with one input, as NeuroBench calls networks: the first channel is the sound."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, both):
        return self.model(both[:, :1], both[:, 1:]).logits


@each_method
def test_neurobench_counts_the_same(method):
    pytest.importorskip("neurobench", reason="needs neurobench, which the extra dev installs")
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics import static, workload
    from neurobench.models import TorchModel

    model = awake(small(method, rpb="learned")).eval()
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            layer.weight.data[torch.rand(layer.weight.shape) < 0.2] = 0.0
    inputs = torch.randn(6, 4, 32, 32)
    wrapped = TorchModel(Joined(model))
    wrapped.add_activation_module(LIF)
    metrics = [
        [static.Footprint, static.ParameterCount, static.ConnectionSparsity],
        [workload.ActivationSparsity, workload.SynapticOperations],
    ]
    loader = DataLoader(TensorDataset(inputs, torch.zeros(6)), batch_size=6)
    with torch.no_grad():
        theirs = Benchmark(wrapped, loader, [], [], metrics).run(quiet=True)

    with SpikeCounter(model) as spikes, SynapticCounter(model) as counter, torch.inference_mode():
        model(inputs[:, :1], inputs[:, 1:])
    fired, size = spikes.counts.sum(0).tolist()
    operations = theirs["SynapticOperations"]
    assert footprint(model) == theirs["Footprint"]
    assert count_parameters(model) == theirs["ParameterCount"]
    assert connection_sparsity(model) == theirs["ConnectionSparsity"] > 0.1
    assert 1 - fired / size == pytest.approx(theirs["ActivationSparsity"], abs=1e-9)
    # NeuroBench adds in float32.
    assert counter.operations(6) == pytest.approx(
        [operations[key] for key in ("Dense", "Effective_MACs", "Effective_ACs")], rel=1e-6
    )
    assert operations["Effective_MACs"] > 0
    assert operations["Effective_ACs"] > 0
