"""Every network, compared with results of the authors' code on the same weights and inputs."""

import numpy as np
import pytest
import torch

from avsnn.models.losses import LossSettings, training_loss
from avsnn.models.neuron import LIF
from avsnn.models.spike_counter import spike_rates

from .golden import NAMES, Golden, feeds_batch_norm, golden

MODES = ("eval", "train")


@pytest.fixture(params=NAMES)
def recorded(request) -> Golden:
    return golden(request.param)


@pytest.fixture(params=["auto", "torch"], autouse=True)
def _each_kind_of_kernels(request, kernels_named) -> None:
    kernels_named(request.param)


def largest_difference(ours: torch.Tensor, theirs: np.ndarray) -> float:
    assert tuple(ours.shape) == theirs.shape
    return float(np.abs(ours.detach().numpy() - theirs).max())


@pytest.mark.parametrize("mode", MODES)
def test_logits_and_features_are_the_published_ones(recorded, mode):
    output = recorded.run(recorded.model(training=mode == "train"))
    assert largest_difference(output.logits, recorded.arrays[f"{mode}_logits"]) < 1e-5
    features = output.auxiliary or (output.audio_residual, output.visual_residual)
    for modality, ours in zip(("audio", "visual"), features, strict=True):
        theirs = recorded.array(f"{mode}_{modality}_feature")
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            assert largest_difference(ours, theirs) < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_every_neuron_layer_fires_as_often_as_published(recorded, mode):
    model = recorded.model(training=mode == "train")
    with spike_rates(model) as rates:
        recorded.run(model)
    theirs = {}
    columns = (recorded.arrays[f"lif_{c}"].tolist() for c in ("names", f"count_{mode}", "size"))
    for name, spikes, size in zip(*columns, strict=True):
        if (ours := recorded.our_module(name)) is not None:
            theirs[ours] = (spikes, size)
    assert {name: (rate.spikes, rate.size) for name, rate in rates.items()} == theirs


def test_spike_trains_are_the_published_ones_bit_by_bit(recorded):
    model = recorded.model(training=True)
    trains = {}

    def keep(name):
        return lambda _module, _inputs, spikes: trains.__setitem__(name, spikes.detach())

    for name, module in model.named_modules():
        if isinstance(module, LIF):
            module.register_forward_hook(keep(name))
    recorded.run(model)
    compared = 0
    for name, bits in recorded.under("bits_train/").items():
        if (ours := recorded.our_module(name)) is None:
            continue
        train = trains[ours]
        # The alignment neurons were recorded with tokens before channels.
        if name.endswith("trans_lif"):
            train = train.transpose(2, 3).contiguous()
        assert np.array_equal(np.packbits(train.numpy().astype(bool)), bits), name
        compared += 1
    assert compared >= 4


def test_losses_are_the_published_ones(recorded):
    output = recorded.run(recorded.model(training=True))
    losses = training_loss(output, recorded.labels, LossSettings())
    parts = recorded.arrays
    auxiliary = parts.get("loss_ce_audio", 0.0) + parts.get("loss_ce_visual", 0.0)
    assert float(losses.total.detach()) == pytest.approx(float(parts["loss"]), abs=1e-5)
    assert float(losses.cross_entropy.detach()) == pytest.approx(float(parts["loss_ce"]), abs=1e-5)
    assert float(losses.alignment.detach()) == pytest.approx(
        float(parts.get("loss_contrastive", 0.0)), abs=1e-5
    )
    assert float(losses.auxiliary.detach()) == pytest.approx(float(auxiliary), abs=1e-5)


def test_gradients_of_every_parameter_are_the_published_ones(recorded):
    model = recorded.model(training=True)
    losses = training_loss(recorded.run(model), recorded.labels, LossSettings())
    losses.total.backward()
    ours = {name: p.grad for name, p in model.named_parameters()}
    names = recorded.arrays["gradstat_names"].tolist()
    assert {recorded.our_key(name) for name in names} == set(ours)
    for name, (norm, _, largest) in zip(names, recorded.arrays["gradstat"], strict=True):
        if not feeds_batch_norm(name):
            grad = ours[recorded.our_key(name)].double()
            assert grad.norm().item() == pytest.approx(norm, rel=1e-4), name
            assert grad.abs().max().item() == pytest.approx(largest, rel=1e-4), name
    for name, theirs in recorded.under("grad/").items():
        if not feeds_batch_norm(name):
            gap = largest_difference(ours[recorded.our_key(name)], theirs)
            assert gap < 1e-4 * np.abs(theirs).max(), name


def test_running_statistics_move_as_published(recorded):
    model = recorded.model(training=True)
    recorded.run(model)
    ours = dict(model.named_buffers())
    after = {k: v for k, v in recorded.under("after/").items() if recorded.our_key(k) is not None}
    for name, theirs in after.items():
        gap = largest_difference(ours[recorded.our_key(name)], theirs)
        assert gap < 1e-6 * np.abs(theirs).max(), name


def test_weights_of_the_authors_load_without_loss(recorded):
    authors = recorded.authors
    assert authors.unknown == []
    assert set(recorded.model(training=False).state_dict()) == set(authors.state)
    used = {n.rsplit(".", 1)[0] for n in recorded.arrays["gradstat_names"].tolist()}
    assert not used & {key.rsplit(".", 1)[0] for key in authors.dropped}


@pytest.mark.parametrize("name", ["spatialtemporal", "shallow_spatialtemporal"])
def test_static_input_gives_what_its_copies_give(name):
    recorded = golden(name)
    copies = {
        m: recorded.input(m).expand(recorded.steps, *recorded.input(m).shape)
        for m in ("audio", "visual")
    }
    static, repeated = recorded.model(training=True), recorded.model(training=True)
    once, often = recorded.run(static), recorded.run(repeated, **copies)
    torch.testing.assert_close(once.logits, often.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(once.audio_residual, often.audio_residual, rtol=0, atol=0)
    for output, model in ((once, static), (often, repeated)):
        training_loss(output, recorded.labels, LossSettings()).total.backward()
        assert all(p.grad is not None for p in model.parameters())
    for (key, a), b in zip(static.named_parameters(), repeated.parameters(), strict=True):
        if not key.endswith(("expand.conv.bias", "contract.conv.bias")):
            gap = (a.grad - b.grad).abs().max() / b.grad.abs().max()
            assert gap < 1e-4, key
    for (key, a), b in zip(static.named_buffers(), repeated.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=key)
