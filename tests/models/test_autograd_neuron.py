"""Neurons other than the published neuron, compared with equations and gradients by hand."""

import math
from itertools import product

import pytest
import torch

from avsnn.models.autograd_neuron import autograd_lif
from avsnn.models.neuron import LIF, lif
from avsnn.models.neuron_constants import RESETS, NeuronConstants
from avsnn.models.surrogate import SURROGATES

DERIVATIVES = {
    "sigmoid": lambda u, a: a * torch.exp(-a * u) / (1 + torch.exp(-a * u)) ** 2,
    "atan": lambda u, a: a / 2 / (1 + (math.pi / 2 * a * u) ** 2),
    "rectangular": lambda u, a: ((-a / 2 < u) & (u < a / 2)).double() / a,
}
SLOPES = {"sigmoid": 4.0, "atan": 2.0, "rectangular": 1.0}


def by_hand(x, grad, *, rate, threshold, reset, surrogate, detach):
    """Return spikes and the gradients of x and of the rate, by loops over time steps."""
    T, v = len(x), torch.zeros_like(x[0])
    before, h, s = [], [], []
    for t in range(T):
        before.append(v)
        h.append(v + (x[t] - v) * rate)
        s.append((h[t] >= threshold).double())
        v = h[t] * (1 - s[t]) if reset == "hard" else h[t] - threshold * s[t]
    dx, d_rate, dv = torch.zeros_like(x), torch.zeros((), dtype=x.dtype), torch.zeros_like(x[0])
    for t in reversed(range(T)):
        through = {"hard": 1 - s[t], "soft": 1.0}[reset]
        slope = DERIVATIVES[surrogate](h[t] - threshold, SLOPES[surrogate])
        dh = grad[t] * slope + dv * through
        dx[t] = dh * rate
        d_rate = d_rate + (dh * (x[t] - before[t])).sum()
        dv = torch.zeros_like(dh) if detach else dh * (1 - rate)
    return torch.stack(s), dx, d_rate


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("reset", "surrogate", "detach", "tau"),
    list(product(("hard", "soft"), DERIVATIVES, (True, False), (2.0, 3.0))),
)
def test_spikes_and_gradients_are_those_of_the_written_equations(reset, surrogate, detach, tau):
    x, grad = noise(5, 3, 40) * 2 + 0.6, noise(5, 3, 40, seed=1)
    w = torch.tensor(-math.log(tau - 1), dtype=torch.float64, requires_grad=True)
    given = x.clone().requires_grad_()
    choice = {"reset": reset, "surrogate": surrogate, "threshold": 0.75, "detach_membrane": detach}
    spikes = lif(given, rate=torch.sigmoid(w), **choice)
    spikes.backward(grad)
    train, dx, d_rate = by_hand(
        x,
        grad,
        rate=1 / tau,
        threshold=0.75,
        reset=reset,
        surrogate=surrogate,
        detach=detach,
    )
    assert torch.equal(spikes, train)
    assert 0.1 < train.mean() < 0.9
    torch.testing.assert_close(given.grad, dx)
    torch.testing.assert_close(w.grad, d_rate * (1 / tau) * (1 - 1 / tau))
    fixed = x.clone().requires_grad_()
    lif(fixed, tau=tau, **choice).backward(grad)
    torch.testing.assert_close(fixed.grad, dx)


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_the_published_choice_has_the_gradient_of_the_kernels_written_for_it(steps):
    x, grad = noise(steps, 6, 50) + 0.8, noise(steps, 6, 50, seed=1)
    neuron = NeuronConstants(2.0, 1.0, 4.0, detach_membrane=True)
    assert neuron.has_kernels
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    plain = autograd_lif(ours, steps=None, neuron=neuron, rate=0.5)
    fast = lif(theirs)
    assert torch.equal(plain, fast)
    plain.backward(grad)
    fast.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad)


CHOICES = [
    {"reset": "soft"},
    {"surrogate": "atan"},
    {"surrogate": "rectangular", "slope": 2.0},
    {"learn_tau": True, "tau": 3.0},
    {"reset": "soft", "surrogate": "atan", "learn_tau": True, "detach_membrane": False},
]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_constant_current_equals_its_copies(choice):
    layer, x = LIF(**choice).double(), noise(3, 60) + 0.9
    grad, results = noise(6, 3, 60, seed=1), []
    for given, steps in ((x, 6), (x.expand(6, 3, 60), None)):
        leaf = given.clone().requires_grad_()
        layer.zero_grad()
        spikes = layer(leaf, steps)
        spikes.backward(grad)
        total = leaf.grad if steps else leaf.grad.sum(dim=0)
        results.append((spikes, total, *(p.grad.clone() for p in layer.parameters())))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("choice", CHOICES)
def test_only_the_published_neuron_has_kernels(choice):
    assert LIF(slope=2.0, tau=3.0, threshold=0.5).constants.has_kernels
    assert not LIF(detach_membrane=False).constants.has_kernels
    assert not LIF(**choice).constants.has_kernels


@pytest.mark.parametrize("reset", RESETS)
def test_a_neuron_far_above_threshold_keeps_what_its_reset_says(reset):
    # h = 1.5 fires. The next h is 1.6 / 2 from rest (hard), or 0.5 + 1.1 / 2 from 0.5 (soft).
    current = torch.tensor([[3.0], [1.6]])
    assert lif(current, reset=reset).flatten().tolist() == {"hard": [1, 0], "soft": [1, 1]}[reset]


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("slope", [None, 0.7, 3.0])
def test_a_surrogate_is_the_slope_of_something_that_rises_from_0_to_1(surrogate, slope):
    known = SURROGATES[surrogate]
    assert known.slope == SLOPES[surrogate]
    u = torch.linspace(-2000, 2000, 4_000_001, dtype=torch.float64)
    area = torch.trapezoid(known.derivative(u, slope or known.slope), u)
    assert area.item() == pytest.approx(1.0, abs=2e-3)


def test_slope_reaches_the_gradient():
    # h is 1, the threshold, where the derivatives are slope / 4, slope / 2 and 1 / width.
    x = torch.tensor([[2.0]])
    for surrogate, slope, expected in (
        ("sigmoid", 8.0, 2.0),
        ("atan", 8.0, 4.0),
        ("rectangular", 8.0, 1 / 8),
    ):
        given = x.clone().requires_grad_()
        lif(given, surrogate=surrogate, slope=slope).sum().backward()
        assert given.grad.item() == pytest.approx(expected / 2)


def test_detaching_the_membrane_changes_the_gradient_of_every_choice():
    for reset, learn in product(RESETS, (True, False)):
        grads = []
        for detach in (True, False):
            layer = LIF(reset=reset, surrogate="atan", learn_tau=learn, detach_membrane=detach)
            x = (noise(4, 30) + 0.6).requires_grad_()
            layer(x)[3].sum().backward()
            grads.append([x.grad[:3].abs().sum(), *(p.grad for p in layer.parameters())])
        assert grads[0][0] == 0 < grads[1][0]
        if learn:
            assert grads[0][1] != grads[1][1]


def test_a_learned_time_constant_starts_where_it_is_told_and_stays_above_one_step():
    layer = LIF(learn_tau=True, tau=5.0)
    assert [tuple(p.shape) for p in layer.parameters()] == [()]
    assert torch.sigmoid(layer.w).item() == pytest.approx(1 / 5)
    assert not list(LIF(tau=5.0).parameters())
    x = noise(4, 50) + 2.0
    assert torch.equal(layer.double()(x), lif(x, tau=5.0))
    with torch.no_grad():
        layer.w.fill_(30.0)
    assert torch.equal(layer(x), lif(x, tau=1.0))
    with pytest.raises(ValueError, match="must start above 1 step"):
        LIF(learn_tau=True, tau=1.0)


def saved_by(layer):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(torch.randn(4, 10, requires_grad=True))
    return sum(t.numel() for t in saved if t.dim()) / 40


@pytest.mark.parametrize(
    ("choice", "potentials"),
    [
        ({}, 1),
        ({"reset": "soft"}, 1),
        ({"reset": "soft", "detach_membrane": False}, 1),
        ({"surrogate": "atan", "detach_membrane": False}, 2),
        ({"learn_tau": True}, 2),
        ({"learn_tau": True, "detach_membrane": False}, 3),
    ],
)
def test_a_neuron_saves_what_its_documentation_says(choice, potentials):
    assert saved_by(LIF(**choice)) == potentials


def test_evaluation_of_any_neuron_saves_nothing():
    with torch.no_grad():
        spikes = LIF(reset="soft", learn_tau=True)(torch.randn(4, 10, requires_grad=True))
    assert spikes.grad_fn is None
