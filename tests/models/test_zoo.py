"""Properties of every network in the registry."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from avsnn.models.losses import LossSettings, training_loss
from avsnn.models.neuron import LIF
from avsnn.models.patch_split import PATCH_SPLITS
from avsnn.models.spike_counter import spike_rates
from avsnn.models.zoo import ModelSettings, build

from .networks import CLASSES, NEURONS, awake, clips, each_method, small


@each_method
def test_every_parameter_of_every_method_gets_a_gradient(method):
    model = small(method)
    output = model(*clips())
    assert output.logits.shape == (3, CLASSES)
    labels = torch.tensor([0, 1, 1])
    training_loss(output, labels, LossSettings()).total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@each_method
@pytest.mark.parametrize("steps", range(1, 9))
def test_any_number_of_steps_runs_on_images_and_on_events(method, steps):
    model = small(method, steps=steps, patch_split="shallow", channels=16, tokens=16).eval()
    audio, visual = clips(batch=2, side=16)
    static = model(audio, visual)
    events = model(*(x.expand(steps, *x.shape) for x in (audio, visual)))
    assert static.logits.shape == events.logits.shape == (2, CLASSES)
    # The position bias of sca is random.
    if method != "sca":
        torch.testing.assert_close(static.logits, events.logits)


@each_method
def test_calling_twice_gives_the_same_output(method):
    model = awake(small(method)).eval()
    outputs = []
    for _ in range(2):
        # The published position bias of sca is random.
        torch.manual_seed(3)
        outputs.append(model(*clips()).logits)
    assert torch.equal(*outputs)


@each_method
def test_evaluation_does_not_depend_on_the_order_of_the_batch(method):
    model = awake(small(method, rpb="learned")).eval()
    order = torch.tensor([2, 0, 1])
    audio, visual = clips()
    straight, turned = model(audio, visual).logits, model(audio[order], visual[order]).logits
    torch.testing.assert_close(straight[order], turned)


@each_method
def test_a_network_that_is_awake_fires_everywhere(method):
    # Attention scales by 0.25, so with only 4 tokens the currents of sca could not reach 1.
    model = awake(small(method, tokens=16))
    with spike_rates(model) as rates:
        model(*clips(side=64))
    assert min(rates.values()) > 0


def test_with_a_norm_every_layer_fires_from_the_start_at_the_thresholds_of_the_paper():
    # These are the settings of the preset 'healthy'. With the published settings, the neurons on
    # attention and the alignment neurons are silent.
    thresholds = {"attention_threshold": 0.5, "alignment_threshold": 0.5}
    norms = {"attention_norm": True, "alignment_norm": True}

    def silent(**fields) -> set[str]:
        model = small(channels=64, heads=16, **fields)
        with spike_rates(model) as rates:
            model(*clips(batch=16, side=64))
        return {name for name, rate in rates.items() if rate == 0}

    assert not silent(**thresholds, **norms)
    assert any("alignment" in name for name in silent())
    assert any("alignment" in name for name in silent(**thresholds))


def test_a_static_clip_never_exists_in_copies():
    model, shapes = small(steps=7), []
    for stream in (model.audio_patch, model.visual_patch):
        stage = stream.stages[0]
        stage.conv.register_forward_hook(lambda _m, i, o: shapes.extend((i[0].shape, o.shape)))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        model(*clips(batch=2))
    assert len(shapes) == 4
    assert all(shape[0] == 2 and len(shape) == 4 for shape in shapes)
    full = [t.shape for t in saved if t.shape[-2:] == (32, 32)]
    assert {tuple(shape[:2]) for shape in full} <= {(2, 1), (2, 3), (2, 4)}


@pytest.mark.parametrize("split", PATCH_SPLITS)
def test_sides_that_do_not_divide_are_refused_in_one_sentence(split):
    model = small(patch_split=split)
    patch = {"deep": 16, "shallow": 4}[split]
    audio, visual = clips(side=32)
    with pytest.raises(ValueError, match=f"multiples of {patch}, not 30 x 32") as caught:
        model(audio[:, :, :30], visual)
    assert "\n" not in str(caught.value)


def test_events_with_another_number_of_steps_are_refused():
    audio, visual = (x.expand(2, *x.shape) for x in clips())
    with pytest.raises(ValueError, match="Input has 2 time steps, but the model was built for 4"):
        small()(audio, visual)


@each_method
def test_a_missing_modality_is_refused_only_where_it_is_needed(method):
    model = small(method)
    audio, visual = clips()
    needed = {"audio": (True, False), "visual": (False, True)}.get(method, (True, True))
    for inputs, missing in (((None, visual), needed[0]), ((audio, None), needed[1])):
        if missing:
            with pytest.raises(ValueError, match="needs"):
                model(*inputs)
        else:
            assert model(*inputs).logits.shape == (3, CLASSES)


def test_streams_of_different_size_are_refused():
    audio, visual = clips()
    with pytest.raises(ValueError, match="must agree in batch and tokens"):
        small()(audio[:2], visual)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"classes": 1}, "at least 2 classes"),
        ({"classes": 6, "audio_channels": 0}, "at least one channel"),
        ({"classes": 6, "tokens": None}, "needs the number of tokens"),
        ({"classes": 6, "tokens": 12}, "square grid"),
    ],
)
def test_impossible_sizes_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(ModelSettings(method="sca", rpb="learned"), **arguments)


# The published counts include modules that the authors' code builds and never calls: 25,120
# parameters of an attention over both streams, 1,024 of two layer norms for each block, and one
# whole block of CMCI.
UNUSED = 25_120 + 2 * 1_024


UNUSED_CMCI_BLOCK = 2 * (256 * 256 + 256) + 2 * 256 * 1024 + 3 * 1024 + 3 * 256


@pytest.mark.parametrize(
    ("fields", "published", "unused"),
    [
        ({"attention": "spatial"}, 3_702_822, UNUSED),
        ({"attention": "temporal"}, 3_702_822, UNUSED),
        ({"alignment": False}, 4_099_622, UNUSED),
        ({}, 4_231_206, 4_231_206 - 4_204_038),
        ({"method": "weight-attention"}, 3_306_024, UNUSED),
        ({"method": "sca"}, 3_571_238, UNUSED),
        ({"method": "cmci"}, 4_365_362, UNUSED + UNUSED_CMCI_BLOCK),
        ({"method": "visual"}, 1_774_118, 1_024),
    ],
)
def test_parameters_count_as_published_less_what_is_never_called(fields, published, unused):
    model = build(ModelSettings(**fields), classes=6)
    assert sum(p.numel() for p in model.parameters()) == published - unused


def test_thresholds_reach_the_neurons_they_name():
    model = small(threshold=0.9, attention_threshold=0.5, alignment_threshold=0.4, tau=3.0)
    by_name = {n: m.threshold for n, m in model.named_modules() if isinstance(m, LIF)}
    assert by_name["fusion.audio.spatial.lif"] == by_name["fusion.visual.temporal.lif"] == 0.5
    assert by_name["fusion.audio_alignment.lif"] == by_name["fusion.visual_alignment.lif"] == 0.4
    assert by_name["fusion.audio.spatial.query.lif"] == by_name["audio_patch.stages.0.lif"] == 0.9
    assert {m.tau for m in model.modules() if isinstance(m, LIF)} == {3.0}


@each_method
@pytest.mark.parametrize("choice", NEURONS)
def test_every_method_learns_with_every_choice_of_neuron(method, choice):
    model = awake(small(method, tokens=16, **choice))
    neurons = [m for m in model.modules() if isinstance(m, LIF)]
    assert not any(neuron.constants.has_kernels for neuron in neurons)
    model(*clips(side=64)).logits.square().sum().backward()
    first = [p for n, p in model.named_parameters() if n.endswith("stages.0.conv.weight")]
    assert first
    assert all(p.grad.abs().sum() > 0 for p in first)


def test_each_layer_learns_a_time_constant_of_its_own():
    model = awake(small(learn_tau=True, tau=3.0))
    names = {n for n, m in model.named_modules() if isinstance(m, LIF)}
    learned = {n.removesuffix(".w"): p for n, p in model.named_parameters() if n.endswith(".w")}
    assert set(learned) == names
    model(*clips()).logits.square().sum().backward()
    assert all(p.grad is not None for p in learned.values())
    assert sum(bool(p.grad) for p in learned.values()) > len(names) / 2
    with pytest.raises(ValidationError, match="must start above 1 step"):
        ModelSettings(learn_tau=True, tau=1.0)


def test_spike_rates_name_every_layer_of_a_network():
    model = small()
    with spike_rates(model) as rates:
        model(*clips())
    assert set(rates) == {n for n, m in model.named_modules() if isinstance(m, LIF)}
    assert 0.0 < rates["audio_patch.stages.0.lif"] < 1.0


def test_detaching_the_membrane_changes_gradients_and_nothing_else():
    grads, logits = [], []
    for detach in (True, False):
        model = awake(small(detach_membrane=detach))
        output = model(*clips())
        output.logits.square().sum().backward()
        logits.append(output.logits.detach())
        grads.append(model.audio_patch.stages[1].conv.weight.grad)
    assert torch.equal(*logits)
    assert not torch.allclose(*grads)


def test_linear_layers_start_narrow_and_without_bias():
    model = small()
    for layer in (m for m in model.modules() if isinstance(m, nn.Linear)):
        assert layer.bias.abs().max() == 0
        assert layer.weight.detach().std().item() == pytest.approx(0.02, rel=0.3)
