"""Counted operations, compared with counts by hand or one by one."""

import pytest
import torch
from torch import nn

from avsnn.models.energy import count_operations, count_parameters
from avsnn.models.neuron import LIF
from avsnn.models.zoo import METHODS, ModelSettings, build


class Reads(nn.Module):
    """A network of one layer that reads only the audio input."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, audio, _visual):
        return self.layer(audio)


def only(model: nn.Module, values: torch.Tensor):
    (layer,) = count_operations(Reads(model), values, None).layers
    return layer


def spikes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).lt(0.4).float()


def test_a_spike_costs_one_accumulate_for_each_weight_it_meets():
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 0, 0] = image[0, 0, 1, 1] = 1.0
    layer = only(nn.Conv2d(1, 2, 3, padding=1), image)
    # 4 windows see the corner, and all 9 windows see the middle; each window has 2 outputs.
    assert (layer.name, layer.kind, layer.binary) == ("layer", "convolution", True)
    assert (layer.dense, layer.macs, layer.acs, layer.operations) == (9 * 2 * 9, 0, 2 * 13, 26)


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0])
def test_one_value_that_is_no_spike_makes_every_operation_a_mac(value):
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 1] = value
    layer = only(nn.Conv2d(1, 2, 3, padding=1), image)
    assert (layer.binary, layer.macs, layer.acs) == (False, 9 * 2 * 9, 0)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"groups": 2}, {"dilation": 2}])
def test_convolutions_are_counted_as_if_one_by_one(options):
    conv, image = nn.Conv2d(4, 6, 3, padding=1, bias=False, **options), spikes(2, 4, 7, 5)
    layer = only(conv, image)
    # With weights of 1, each spike adds 1 to every output that sees the spike.
    nn.init.ones_(conv.weight)
    assert layer.acs == conv(image).sum() / 2
    inputs = conv.weight[0].numel()
    assert layer.dense == conv(image).numel() * inputs / 2


def test_linear_layers_are_counted_by_their_ones():
    rows = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1]])
    layer = only(nn.Linear(3, 5), rows[:, None, None])
    assert (layer.kind, layer.dense, layer.acs) == ("linear", 15, 5 * 6 / 4)


class Product(nn.Module):
    def __init__(self, right: torch.Tensor) -> None:
        super().__init__()
        self.right = right

    def forward(self, left):
        return left @ self.right


def one_by_one(left, right, counts) -> int:
    total = 0
    for a, b in zip(left.flatten(0, -3), right.flatten(0, -3), strict=True):
        for row in a:
            for column in b.T:
                pairs = zip(row.tolist(), column.tolist(), strict=True)
                total += sum(counts(x, y) for x, y in pairs)
    return total


@pytest.mark.parametrize(
    ("left", "right", "counts"),
    [
        (1.0, 1.0, lambda x, y: x != 0 and y != 0),
        (1.0, 0.25, lambda x, y: x != 0),
        (0.25, 1.0, lambda x, y: y != 0),
        (0.25, 0.25, lambda x, y: True),
    ],
)
def test_products_are_counted_as_if_one_by_one(left, right, counts):
    a, b = spikes(1, 2, 3, 4) * left, spikes(1, 2, 4, 5, seed=1) * right
    layer = only(Product(b), a)
    binary = 1.0 in (left, right)
    assert (layer.name, layer.kind, layer.binary) == ("layer[0]", "product", binary)
    assert layer.dense == 2 * 3 * 4 * 5
    assert (layer.acs, layer.macs)[not binary] == one_by_one(a, b, counts)
    assert (layer.acs, layer.macs)[binary] == 0


def firing(method: str, **fields) -> nn.Module:
    """Build a network whose neurons fire on any input: weights 0, biases that give current 2."""
    settings = ModelSettings(
        **{"method": method, "channels": 8, "heads": 1, "patch_split": "shallow", **fields}
    )
    model = build(settings, classes=5)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.constant_(module.bias, 2.0)
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.bias, 2.0)
    return model.eval()


def images(batch: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, 1, side, side), torch.randn(batch, 3, side, side)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_whole_network_costs_what_was_counted_by_hand(batch):
    operations = count_operations(firing("add", steps=2), *images(batch, 8))
    counted = {layer.name: layer[2:] for layer in operations.layers}
    expected = {}
    for stream, channels in (("audio", 1), ("visual", 3)):
        first, tokens = 64 * 4 * channels * 9, 2 * 4
        expected |= {
            # The convolution of a static image is computed once, not T times.
            f"{stream}_patch.stages.0.conv": (first, False, first, 0),
            # Windows on 4 x 4 see (2 + 3 + 3 + 2) ** 2 places that are not padding.
            f"{stream}_patch.stages.1.conv": (2 * 16 * 8 * 4 * 9, True, 0, 2 * 100 * 8 * 4),
            f"{stream}_patch.position.conv": (2 * 4 * 8 * 8 * 9, True, 0, 2 * 16 * 8 * 8),
            # Tokens behind the position branch are 1 + 1, so they are not binary.
            f"{stream}_mlp.expand.conv": (tokens * 8 * 32, False, tokens * 8 * 32, 0),
            f"{stream}_mlp.contract.conv": (tokens * 32 * 8, True, 0, tokens * 32 * 8),
        }
    expected["readout.head"] = (8 * 5, False, 8 * 5, 0)
    assert counted == expected
    assert operations.dense == sum(dense for dense, *_ in expected.values())
    macs, acs = (sum(column) for column in list(zip(*expected.values(), strict=True))[2:])
    assert (operations.macs, operations.acs) == (macs, acs)
    assert operations.energy() == pytest.approx(4.6 * macs + 0.9 * acs)
    assert operations.energy(mac_pj=1.0, ac_pj=0.0) == macs
    assert operations.dense_energy(mac_pj=2.0) == 2 * operations.dense
    assert operations.parameters == count_parameters(firing("add"))


def test_attention_costs_what_was_counted_by_hand():
    T, N, C = 3, 16, 8
    model = firing("s-cmrl", steps=T)
    for block in (model.fusion.audio, model.fusion.visual):
        # A current of 1.2 fires at one step in three, so the means are neither 0 nor 1.
        nn.init.constant_(block.temporal.projection.norm.bias, 1.2)
    operations = count_operations(model, *images(1, 16))
    counted = {layer.name: layer[2:] for layer in operations.layers}
    mixed = T * N * C * C
    for stream in ("audio", "visual"):
        block = f"fusion.{stream}"
        for kind in ("spatial", "temporal"):
            # Query, key and value read the sums 0, 1, 2.
            for name in ("query", "key", "value"):
                assert counted[f"{block}.{kind}.{name}.conv"] == (mixed, False, mixed, 0)
            assert counted[f"{block}.{kind}.projection.conv"] == (mixed, True, 0, mixed)
            # In the first product every spike meets a spike; in the second, it meets a row.
            length, heads = {"spatial": (N, T), "temporal": (T, N)}[kind]
            smaller = min(C, length)
            each = heads * length * C * smaller
            for product in (0, 1):
                assert counted[f"{block}.{kind}.mix[{product}]"] == (each, True, 0, each)
        # The alignment reads a product of means, and the MLP a stream that gained 1.5 spikes.
        assert counted[f"{block}_alignment.linear"] == (mixed, False, mixed, 0)
        assert counted[f"{stream}_mlp.expand.conv"] == (4 * mixed, False, 4 * mixed, 0)


def test_scores_that_fire_are_binary_too():
    model = firing("sca", steps=2)
    model.fusion.visual.mix.lif = LIF(threshold=1e-3)
    counted = {layer.name: layer for layer in count_operations(model, *images(1, 16)).layers}
    scores, mixed = (counted[f"fusion.visual.mix[{product}]"] for product in (0, 1))
    assert scores.dense == mixed.dense == scores.acs == 2 * 16 * 16 * 8
    assert 0 < mixed.acs <= mixed.dense


@pytest.mark.parametrize("method", METHODS)
def test_counting_changes_nothing_about_a_network(method):
    model = firing(method, rpb="published").train()
    # A caller may have frozen a part of the network.
    next(model.children()).eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    operations = count_operations(model, *images(2, 16))
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    names = [layer.name for layer in operations.layers]
    assert len(set(names)) == len(names)
    kinds = nn.Conv1d | nn.Conv2d | nn.Linear
    weighted = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    assert weighted <= set(names)
    assert all(layer.operations <= layer.dense for layer in operations.layers)


def test_dense_operations_do_not_depend_on_what_is_seen():
    model, (audio, visual) = firing("s-cmrl"), images(2, 16)
    seen, unseen = (
        count_operations(model, *pair)
        for pair in ((audio, visual), (torch.zeros_like(audio), torch.zeros_like(visual)))
    )
    assert seen.dense == unseen.dense
    # An image of zeros is silent, so even the first convolution is free.
    assert unseen.layers[0].operations == 0 < seen.layers[0].macs


def test_nothing_to_count_and_what_cannot_be_counted_are_refused():
    with pytest.raises(ValueError, match="none was given"):
        count_operations(firing("add"), None, None)

    class Sums(nn.Module):
        def forward(self, x):
            return torch.einsum("bchw,bcwv->bchv", x, x)

    with pytest.raises(ValueError, match="einsum are not counted"):
        count_operations(Reads(Sums()), torch.ones(1, 1, 2, 2), None)
