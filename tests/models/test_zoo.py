"""What every network in the registry promises."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from avsnn.models.attention import QUERY_SIDES
from avsnn.models.losses import LossSettings, training_loss
from avsnn.models.methods import READOUTS
from avsnn.models.neuron import LIF, spike_rates
from avsnn.models.parts import ATTENTIONS
from avsnn.models.patch_split import PATCH_SPLITS
from avsnn.models.recompute import recompute_blocks
from avsnn.models.zoo import METHODS, ModelSettings, build, import_authors_state

CLASSES = 5
each_method = pytest.mark.parametrize("method", METHODS)


def small(method: str = "s-cmrl", *, classes: int = CLASSES, tokens: int | None = 4, **fields):
    torch.manual_seed(0)
    settings = ModelSettings(**{"method": method, "channels": 32, "heads": 4, **fields})
    return build(settings, classes=classes, tokens=tokens)


def awake(model: nn.Module) -> nn.Module:
    """Weights moved until every layer fires; at default initialisation the fusion is silent."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.constant_(module.bias, 1.5)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    return model


def clips(batch: int = 3, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return (
        torch.randn(batch, 1, side, side, generator=generator),
        torch.randn(batch, 3, side, side, generator=generator),
    )


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
    if method != "sca":  # its bias is random
        torch.testing.assert_close(static.logits, events.logits)


@each_method
def test_calling_twice_gives_the_same_output(method):
    model = awake(small(method)).eval()
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)  # for the published random bias of sca
        outputs.append(model(*clips()).logits)
    assert torch.equal(*outputs)


def test_the_random_bias_of_sca_is_new_at_every_call_and_the_learned_one_is_not():
    torch.manual_seed(3)
    query = torch.zeros(1, 1, 1, 1, 4)
    published, learned = (
        small("sca", rpb=rpb).fusion.visual.mix.bias for rpb in ("published", "learned")
    )
    assert not torch.equal(published(query), published(query))
    assert torch.equal(learned(query), learned(query))
    assert learned.table.shape == (5, 5)


@each_method
def test_evaluation_does_not_depend_on_the_order_of_the_batch(method):
    model = awake(small(method, rpb="learned")).eval()
    order = torch.tensor([2, 0, 1])
    audio, visual = clips()
    straight, turned = model(audio, visual).logits, model(audio[order], visual[order]).logits
    torch.testing.assert_close(straight[order], turned)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("layout", ["published", "corrected"])
@pytest.mark.parametrize("alignment", [True, False])
@pytest.mark.parametrize("fuse", READOUTS)
def test_every_ablation_of_s_cmrl_runs(attention, layout, alignment, fuse):
    fields = {"temporal_layout": layout, "alignment": alignment, "fuse": fuse}
    output = small(attention=attention, **fields)(*clips())
    assert output.logits.shape == (3, CLASSES)
    assert output.audio_residual.shape == output.visual_residual.shape == (4, 3, 32)
    assert output.aligned == alignment


def test_both_temporal_layouts_agree_where_heads_cannot_interleave():
    clip = clips()
    one_head = [
        awake(small(attention="temporal", heads=1, temporal_layout=layout)).eval()(*clip).logits
        for layout in ("published", "corrected")
    ]
    torch.testing.assert_close(*one_head)
    many = [
        awake(small(attention="temporal", temporal_layout=layout)).eval()(*clip).audio_residual
        for layout in ("published", "corrected")
    ]
    assert not torch.equal(*many)


@pytest.mark.parametrize("method", ["s-cmrl", "sca"])
def test_the_query_comes_from_the_side_that_the_settings_name(method):
    own, other = torch.zeros(2, 4, 3, 32, 4).bernoulli_(0.5).unbind(0)
    read = {}
    for side in QUERY_SIDES:
        fusion = awake(small(method, query=side, attention="spatial", rpb="learned")).fusion
        for name in ("query", "key", "value"):

            def keep(_module, inputs, name=name, side=side):
                read[side, name] = "own" if inputs[0] is own else "other"

            getattr(fusion.audio, name).register_forward_pre_hook(keep)
        read[side, "out"] = fusion.eval().audio(own, other)
    asked, answered = (QUERY_SIDES, reversed(QUERY_SIDES))
    for side, opposite in zip(asked, answered, strict=True):
        assert read[side, "query"] == side
        assert read[side, "key"] == read[side, "value"] == opposite
    assert not torch.equal(read["own", "out"], read["other", "out"])
    turned = awake(small(method, attention="spatial", rpb="learned")).fusion.eval()
    assert torch.equal(read["other", "out"], turned.audio(other, own))


@each_method
def test_a_network_that_is_awake_fires_everywhere(method):
    # with only 4 tokens, the quarter that attention keeps could not reach 1 in sca
    model = awake(small(method, tokens=16))
    with spike_rates(model) as rates:
        model(*clips(side=64))
    assert min(rates.values()) > 0


def test_with_a_norm_every_layer_fires_from_the_start_at_the_thresholds_of_the_paper():
    # the settings of the preset 'healthy'; as published the attention and alignment are silent
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


def test_alpha_zero_cuts_the_branch_from_the_logits():
    model = awake(small(alpha=0.0)).eval()
    with torch.no_grad():
        before = model(*clips()).logits
        for p in model.fusion.parameters():
            p.normal_()
        assert torch.equal(model(*clips()).logits, before)


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
    ("fields", "sentence"),
    [
        ({"method": "cmci", "alignment": True}, "no cross-modal residuals to align"),
        ({"method": "add", "alignment": True}, "no cross-modal residuals to align"),
        ({"method": "cmci", "fuse": "concat"}, "joins its streams in its own way"),
        ({"channels": 40}, "40 channels do not split into 16 heads"),
        ({"channels": 12, "heads": 4}, "multiple of 8, not 12"),
        ({"method": "nonesuch"}, "no method 'nonesuch'; there are s-cmrl"),
        ({"thresold": 0.5}, "thresold"),
    ],
)
def test_impossible_settings_are_refused(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        ModelSettings(**fields)


def test_settings_changed_behind_the_validator_are_refused_when_built():
    settings = ModelSettings().model_copy(update={"method": "cmci"})
    with pytest.raises(ValueError, match="no cross-modal residuals") as caught:
        build(settings, classes=6)
    assert "\n" not in str(caught.value)


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


def test_settings_survive_a_round_trip():
    for method in METHODS:
        settings = ModelSettings(method=method)
        assert settings.alignment == (method == "s-cmrl")
        assert ModelSettings(**settings.model_dump()) == settings


# The published counts include modules that are built and never called: 25,120 of an attention over
# both streams, 1,024 of two layer norms for each block, and one whole block of CMCI.
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


NEURONS = [
    {"reset": "soft"},
    {"surrogate": "atan", "detach_membrane": False},
    {"surrogate": "rectangular", "surrogate_slope": 2.0},
    {"learn_tau": True, "tau": 3.0},
]


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


def test_weights_that_fit_several_models_are_refused_unless_one_is_named():
    model = {
        "audio_patch_embed.rpe_conv.weight": torch.zeros(8, 8, 3, 3),
        "audio_patch_embed.proj_conv.weight": torch.zeros(1, 1, 3, 3),
        "mlp.0.mlp.fc1_conv.weight": torch.zeros(32, 8, 1),
        "block.0.attn.q_conv.weight": torch.zeros(8, 8, 1),
        "head.weight": torch.zeros(6, 16),
        "module.surprise.weight": torch.zeros(1),
    }
    with pytest.raises(ValueError, match="say which with method"):
        import_authors_state(model, heads=4)
    plain = import_authors_state(model, heads=4, method="add")
    assert plain.settings.method == "concat"
    assert plain.dropped == ["block.0.attn.q_conv.weight"]
    assert plain.unknown == ["module.surprise.weight"]
    with pytest.raises(ValueError, match="no state dict of the authors"):
        import_authors_state({"head.weight": torch.zeros(6, 16)})


def their_spatial_block(**extra: float) -> dict[str, torch.Tensor]:
    scalars = {key.replace("__", "."): torch.tensor(value) for key, value in extra.items()}
    return {
        "audio_patch_embed.rpe_conv.weight": torch.zeros(8, 8, 3, 3),
        "audio_patch_embed.proj_conv.weight": torch.zeros(1, 1, 3, 3),
        "mlp.0.mlp.fc1_conv.weight": torch.zeros(32, 8, 1),
        "block.0.trans_linear.weight": torch.zeros(8, 8),
        "head.weight": torch.zeros(6, 8),
        **scalars,
    }


def test_thresholds_of_the_authors_become_settings():
    state = their_spatial_block(
        block__0__attn__attn_lif__threshold=0.5,
        block__0__trans_lif__threshold=0.25,
        mlp__0__mlp__fc1_lif__threshold=1.0,
    )
    settings = import_authors_state(state, heads=4, attention="temporal").settings
    assert settings.attention_threshold == 0.5
    assert settings.alignment_threshold == 0.25
    assert settings.threshold == 1.0
    assert settings.attention == "temporal"


@pytest.mark.parametrize(
    ("constants", "arguments", "sentence"),
    [
        ({}, {}, "say which with attention"),
        ({}, {"attention": "spatio-temporal"}, "not those of spatio-temporal attention"),
        ({"mlp__0__mlp__fc1_lif__act_fun__alpha": 2.0}, {"attention": "spatial"}, "slope 2.0"),
        (
            {"mlp__0__mlp__fc1_lif__threshold": 1.0, "mlp__0__mlp__fc2_lif__threshold": 2.0},
            {"attention": "spatial"},
            "Thresholds differ",
        ),
    ],
)
def test_weights_that_no_model_of_ours_has_are_refused(constants, arguments, sentence):
    state = their_spatial_block(**constants)
    with pytest.raises(ValueError, match=sentence):
        import_authors_state(state, heads=4, **arguments)


@each_method
def test_blocks_that_are_computed_twice_give_the_same_gradients_and_statistics(method):
    results = []
    for again in (False, True):
        torch.manual_seed(5)
        model = small(method)
        if again:
            recompute_blocks(model)
        saved: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor, saved: list[torch.Tensor] = saved) -> torch.Tensor:
            saved.append(tensor)
            return tensor

        with (
            spike_rates(model) as rates,
            torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
        ):
            torch.manual_seed(6)
            output = model(*clips(batch=2))
        with spike_rates(model) as second:
            output.logits.square().sum().backward()
        assert not second
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append((grads, dict(model.state_dict()), rates, sum(t.nbytes for t in saved)))
    (grads, state, rates, kept), (grads_again, state_again, rates_again, kept_again) = results
    assert grads.keys() == grads_again.keys()
    assert all(torch.equal(grads[n], grads_again[n]) for n in grads)
    assert all(torch.equal(state[n], state_again[n]) for n in state)
    assert rates == rates_again
    assert kept_again < 0.7 * kept
