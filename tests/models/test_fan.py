"""Fan-in and fan-out, counted by hand and one by one."""

import pytest
import torch
from torch import nn

from avsnn.models.fan import fans
from tests.models.networks import clips, each_method, small


def of(layer: nn.Module, *shape: int) -> tuple[int, int]:
    with fans(layer) as found:
        layer(torch.zeros(shape))
    return tuple(found[""])


def test_a_linear_layer_connects_everything():
    assert of(nn.Linear(7, 3), 2, 7) == (7, 3)


@pytest.mark.parametrize(
    ("layer", "side", "fan"),
    [
        # A window sees 3 x 3 places of 4 channels; a place is in 3 x 3 windows of 6 channels.
        (nn.Conv2d(4, 6, 3, padding=1), 8, (36, 54)),
        # On 2 x 2 places, a window of 3 x 3 sees 2 x 2, and each place is in 4 windows.
        (nn.Conv2d(4, 6, 3, padding=1), 2, (16, 24)),
        # With a stride of 2, a place is in at most 2 x 2 windows.
        (nn.Conv2d(4, 6, 3, padding=1, stride=2), 8, (36, 24)),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), 8, (18, 27)),
        (nn.Conv1d(32, 128, 1), 5, (32, 128)),
    ],
)
def test_a_convolution_connects_what_its_windows_see(layer, side, fan):
    shape = [1, layer.in_channels, *[side] * (layer.weight.dim() - 2)]
    assert of(layer, *shape) == fan


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"padding": 2}])
@pytest.mark.parametrize("size", [3, 5, 6])
def test_fans_are_the_largest_numbers_of_connections(options, size):
    conv = nn.Conv1d(2, 3, 3, bias=False, **{"padding": 1, **options})
    nn.init.ones_(conv.weight)
    # The derivative of an output by an input is 1 for each connection.
    jacobian = torch.autograd.functional.jacobian(conv, torch.zeros(1, 2, size))
    connections = jacobian.reshape(-1, 2 * size)
    assert of(conv, 1, 2, size) == (connections.sum(1).max(), connections.sum(0).max())


@each_method
def test_every_layer_of_weights_has_fans_and_nothing_stays_behind(method):
    model = small(method).eval()
    with fans(model) as found, torch.no_grad():
        model(*clips())
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d
    assert set(found) == {name for name, layer in model.named_modules() if isinstance(layer, kinds)}
    assert not any(module._forward_pre_hooks for module in model.modules())
