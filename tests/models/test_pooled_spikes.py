import pytest
import torch
from torch.nn import functional

from avsnn.models.neuron import LIF, spike_rates


def plainly(lif: LIF, current: torch.Tensor, steps: int | None) -> torch.Tensor:
    spikes = lif(current, steps)
    return functional.max_pool2d(spikes.flatten(0, 1), 3, 2, 1).unflatten(0, spikes.shape[:2])


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("sides", [(8, 12), (7, 5)])
def test_pooling_in_one_operation_changes_neither_spikes_nor_gradients(
    detach, steps, constant, sides
):
    torch.manual_seed(steps)
    lif = LIF(detach_membrane=detach)
    shape = (3, 4, *sides) if constant else (steps, 3, 4, *sides)
    current = torch.randn(shape, dtype=torch.float64) + 0.7
    ours, theirs = current.clone().requires_grad_(), current.clone().requires_grad_()
    given = steps if constant else None
    pooled, expected = lif.pooled(ours, given), plainly(lif, theirs, given)
    assert torch.equal(pooled, expected)
    grad = torch.randn_like(pooled)
    pooled.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("choice", [{"reset": "soft"}, {"surrogate": "atan"}, {"learn_tau": True}])
@pytest.mark.parametrize("given", [5, None])
def test_pooling_serves_neurons_that_it_has_no_operation_for(choice, given):
    torch.manual_seed(3)
    lif = LIF(**choice)
    current = torch.randn((2, 3, 8, 6) if given else (5, 2, 3, 8, 6), dtype=torch.float64) + 0.7
    results = []
    for pool in (lambda x: lif.pooled(x, given), lambda x: plainly(lif, x, given)):
        x = current.clone().requires_grad_()
        pooled = pool(x)
        pooled.square().sum().backward()
        results.append((pooled, x.grad))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    published = LIF().pooled(current, given)
    assert torch.equal(published, results[0][0]) == (choice != {"reset": "soft"})


def test_a_layer_that_is_watched_shows_its_spikes_before_pooling():
    lif, current = LIF(), torch.randn(4, 2, 3, 8, 8) + 1
    with spike_rates(lif) as rates:
        watched = lif.pooled(current)
    assert rates[""].size == current.numel()
    assert torch.equal(watched, lif.pooled(current))
