import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from avsnn.models.batch_norm import BatchNorm
from avsnn.models.neuron import LIF, lif
from avsnn.models.spike_counter import spike_rates

from .golden import arrays


def reference(current, *, tau=2.0, threshold=1.0, detach=True):
    """Compute the neuron step by step, with gradients by autograd."""

    class Fire(torch.autograd.Function):
        @staticmethod
        def forward(ctx, h):
            ctx.save_for_backward(h)
            return (h >= threshold).to(h.dtype)

        @staticmethod
        def backward(ctx, grad):
            sigmoid = torch.sigmoid(4 * (ctx.saved_tensors[0] - threshold))
            return grad * 4 * sigmoid * (1 - sigmoid)

    v, spikes = torch.zeros_like(current[0]), []
    for x in current:
        h = v + (x - v) / tau
        s = Fire.apply(h)
        v = h * (1 - s.detach())
        v = v.detach() if detach else v
        spikes.append(s)
    return torch.stack(spikes)


@pytest.mark.parametrize("name", ["torch", "auto"])
def test_neuron_matches_published_arrays_also_one_ulp_below_threshold(name, kernels_named):
    kernels_named(name)
    units = {k.removeprefix("node_"): torch.from_numpy(v) for k, v in arrays("units").items()}
    x = units["x"].view(4, 3, 5, 7).requires_grad_()
    spikes = lif(x)
    spikes.backward(units["gy"].view_as(x))
    assert torch.equal(spikes.detach().view_as(units["spike"]), units["spike"])
    if name == "torch":
        assert torch.equal(x.grad.view_as(units["gx"]), units["gx"])
    torch.testing.assert_close(x.grad.view_as(units["gx"]), units["gx"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("detach", [True, False])
@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 8),
    tau=st.sampled_from([1.0, 2.0, 4.0, 2.5]),
    threshold=st.sampled_from([0.5, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_changing_current_equals_the_plain_neuron(detach, steps, tau, threshold, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, 3, 5, generator=generator, dtype=torch.float64) * 2 + 0.5
    grad = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    spikes = lif(ours, tau=tau, threshold=threshold, detach_membrane=detach)
    expected = reference(theirs, tau=tau, threshold=threshold, detach=detach)
    assert torch.equal(spikes, expected)
    spikes.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("steps", range(1, 9))
def test_constant_current_equals_its_copies(detach, steps):
    x = torch.randn(3, 200, dtype=torch.float64) + 0.8
    grad = torch.randn(steps, 3, 200, dtype=torch.float64)
    once, often = x.clone().requires_grad_(), x.clone().requires_grad_()
    spikes = lif(once, steps=steps, detach_membrane=detach)
    expected = lif(often.expand(steps, 3, 200), detach_membrane=detach)
    assert torch.equal(spikes, expected)
    spikes.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(once.grad, often.grad)


@pytest.mark.parametrize(
    ("current", "train"),
    [
        (2.0, "1111"),
        (math.nextafter(2.0, 0), "0101"),
        (4 / 3 + 1e-12, "0101"),
        (4 / 3 - 1e-12, "0010"),
        (8 / 7 - 1e-12, "0001"),
        (16 / 15 - 1e-12, "0000"),
    ],
)
def test_constant_current_fires_with_the_closed_form_period(current, train):
    spikes = lif(torch.tensor([current], dtype=torch.float64), steps=4)
    assert "".join(str(int(s)) for s in spikes.flatten()) == train


def test_large_tensors_are_worked_on_in_blocks_without_a_seam():
    x = torch.randn(3, 70_001).requires_grad_()
    spikes = lif(x)
    assert torch.equal(spikes, reference(x))
    spikes.sum().backward()
    ours, x.grad = x.grad, None
    reference(x).sum().backward()
    torch.testing.assert_close(ours, x.grad)


def test_transposed_currents_and_gradients_are_read_correctly():
    x = torch.randn(4, 6, 5).requires_grad_()
    spikes = lif(x.transpose(1, 2))
    assert torch.equal(spikes, reference(x.transpose(1, 2)))
    # The gradient of a mean is an expanded tensor, which holds each value once in memory.
    spikes.mean(dim=2).sum().backward()
    ours, x.grad = x.grad, None
    reference(x.transpose(1, 2)).mean(dim=2).sum().backward()
    torch.testing.assert_close(ours, x.grad)


def test_gradient_reaches_earlier_steps_only_without_detaching():
    for detach in (True, False):
        x = torch.full((3, 1), 0.5).requires_grad_()
        lif(x, detach_membrane=detach)[2].sum().backward()
        assert (x.grad[:2].abs().sum() == 0) == detach
        assert x.grad[2] > 0


def test_no_gradient_passes_through_a_reset():
    x = torch.tensor([[3.0], [0.5]]).requires_grad_()
    lif(x, detach_membrane=False)[1].sum().backward()
    assert x.grad[0] == 0


def test_a_constant_current_saves_itself_and_nothing_with_a_time_axis():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.shape) or t, lambda t: t
    ):
        lif(torch.randn(5, 6, requires_grad=True), steps=32)
    assert [math.prod(shape) for shape in saved] == [5 * 6]


def test_evaluation_saves_nothing():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.shape) or t, lambda t: t
    ):
        lif(torch.randn(4, 5, 6))
    assert saved == []


@pytest.mark.parametrize("neuron", [{}, {"reset": "soft"}])
def test_one_value_of_each_channel_is_refused_in_training(neuron) -> None:
    layer, norm = LIF(**neuron), BatchNorm(3)
    one = torch.ones(1, 1, 3, 1)
    with pytest.raises(ValueError, match="batch norm needs more than one value of each channel"):
        layer(one, None, norm)
    assert norm.num_batches_tracked == 0
    layer(one, None, norm.eval())


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_is_refused_also_behind_a_batch_norm(training: bool) -> None:
    """The kernels would read memory that is not there."""
    norm = BatchNorm(8).train(training)
    for layer in (LIF(), LIF().pooled):
        with pytest.raises(ValueError, match="The batch is empty"):
            layer(torch.zeros(4, 0, 8, 16, 16), None, norm)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"current": torch.zeros(0, 2)}, "at least one time step"),
        ({"current": torch.zeros(2), "steps": 0}, "at least one time step"),
        ({"current": torch.zeros(4, 0, 2)}, "The batch is empty"),
        ({"current": torch.zeros(2, 2), "tau": 0.5}, "tau must be at least 1"),
        ({"current": torch.zeros(2, 2), "slope": 0.0}, "slope of a surrogate must be positive"),
        ({"current": torch.zeros(2, 2), "reset": "warm"}, "no reset 'warm'; there are hard, soft"),
        ({"current": torch.zeros(2, 2), "surrogate": "relu"}, "no surrogate 'relu'; there are sig"),
    ],
)
def test_impossible_neurons_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        lif(**arguments)


def layer_by_layer(lif: LIF, current: torch.Tensor, steps: int | None) -> torch.Tensor:
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
    pooled, expected = lif.pooled(ours, given), layer_by_layer(lif, theirs, given)
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
    for pool in (lambda x: lif.pooled(x, given), lambda x: layer_by_layer(lif, x, given)):
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
