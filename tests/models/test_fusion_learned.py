"""The later fusion methods, against plain re-computations of their equations."""

import pytest
import torch
from torch import nn

from avsnn.models.fusion import Fused, NoFusion
from avsnn.models.fusion_learned import FIRST_SHARE, LearnedShare, StepAttention, TokenMask
from avsnn.models.losses import LossSettings, step_cross_entropy, training_loss
from avsnn.models.neuron import LIF
from avsnn.models.registry import MethodError
from avsnn.models.spike_counter import spike_rates

from .networks import CLASSES, awake, clips, small

LATER = ("gated", "cmqka", "taaf")
T, B, C, N = 4, 3, 32, 16


def tokens(seed: int) -> torch.Tensor:
    """Return tokens as a patch split gives them: 0, 1 or 2."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 3, (T, B, C, N), generator=generator).float()


def fusion_of(method: str, **fields) -> nn.Module:
    """Return a fusion whose layers fire at some places only, in evaluation mode."""
    fusion = awake(small(method, **fields)).fusion.eval()
    for name, parameter in fusion.named_parameters():
        if name.endswith("norm.bias"):
            nn.init.normal_(parameter, mean=0.8)
        if name.endswith("share"):
            nn.init.normal_(parameter)
    return fusion


@pytest.mark.parametrize("fields", [{}, {"alignment": False}, {"attention": "spatial"}])
def test_gated_adds_a_share_of_the_residual_of_s_cmrl_to_each_channel(fields):
    audio, visual = tokens(1), tokens(2)
    gated, plain = fusion_of("gated", **fields), small("s-cmrl", alpha=1.0, **fields).fusion.eval()
    plain.load_state_dict({n: p for n, p in gated.state_dict().items() if "share" not in n})
    fused, due = gated(audio, visual), plain(audio, visual)
    assert due.audio_residual.unique().numel() > 1
    for stream, own in (("audio", audio), ("visual", visual)):
        residual = getattr(due, f"{stream}_residual")
        assert torch.equal(getattr(fused, f"{stream}_residual"), residual)
        shares = getattr(gated, f"{stream}_share").share
        for channel in range(C):
            torch.testing.assert_close(
                getattr(fused, stream)[:, :, channel],
                own[:, :, channel] + shares[channel] * (residual[:, :, channel]),
            )


def test_the_mask_keeps_the_key_where_the_sum_of_the_query_fires():
    query, key = ((tokens(seed) > 0).float() for seed in (3, 4))
    threshold, heads = 5.0, 4
    mask = TokenMask(heads=heads, norm=nn.Identity(), lif=LIF(threshold=threshold))
    due = torch.zeros_like(key)
    for b in range(B):
        for head in range(heads):
            channels = slice(head * C // heads, (head + 1) * C // heads)
            for n in range(N):
                potential = 0.0
                for t in range(T):
                    potential += (query[t, b, channels, n].sum().item() - potential) / 2.0
                    if potential >= threshold:
                        due[t, b, channels, n] = key[t, b, channels, n]
                        potential = 0.0
    assert 0 < due.sum() < key.sum()
    assert torch.equal(mask(query, key), due)


@pytest.mark.parametrize("query", ["own", "other"])
def test_cmqka_adds_a_share_of_the_projected_mask(query):
    audio, visual = tokens(1), tokens(2)
    fusion = fusion_of("cmqka", query=query)
    fused = fusion(audio, visual)
    for stream, own, other in (("audio", audio, visual), ("visual", visual, audio)):
        layer = getattr(fusion, stream)
        asking, asked = (own, other) if query == "own" else (other, own)
        masked = layer.mask(layer.query(asking), layer.key(asked))
        residual = layer.projection(masked)
        share = getattr(fusion, f"{stream}_share").share
        assert set(masked.unique().tolist()) == set(residual.unique().tolist()) == {0.0, 1.0}
        torch.testing.assert_close(
            getattr(fused, stream), own + torch.einsum("c,tbcn->tbcn", share, residual)
        )


def test_cmqka_has_one_mask_for_each_head_and_no_products_of_tokens():
    fusion = fusion_of("cmqka")
    shapes = []
    fusion.audio.mask.lif.register_forward_hook(lambda _m, _i, spikes: shapes.append(spikes.shape))
    fusion(tokens(1), tokens(2))
    assert shapes == [(T, B, 4, N)]


def test_taaf_weights_the_steps_by_a_softmax_over_the_steps_of_both_streams():
    audio, visual = tokens(1), tokens(2)
    fusion = StepAttention(channels=C)
    for parameter in fusion.parameters():
        nn.init.normal_(parameter)
    fused = fusion(audio, visual)
    for b in range(B):
        scores = []
        for t in range(T):
            means = [*audio[t, b].mean(1), *visual[t, b].mean(1)]
            hidden = torch.tanh(fusion.mix.weight @ torch.stack(means) + fusion.mix.bias)
            scores.append((fusion.score.weight @ hidden + fusion.score.bias)[0].exp())
        weights = [T * score / sum(scores) for score in scores]
        assert max(weights) > 1.1
        for t in range(T):
            torch.testing.assert_close(fused.audio[t, b], weights[t] * audio[t, b])
            torch.testing.assert_close(fused.visual[t, b], weights[t] * visual[t, b])


def taaf(**custom: bool) -> nn.Module:
    """Return a network whose scores of the time steps differ."""
    network = small("taaf", custom=custom).train()
    nn.init.normal_(network.fusion.mix.weight)
    nn.init.normal_(network.fusion.score.weight, std=5)
    return network


def test_taaf_weights_the_loss_of_every_step_alone():
    network, labels = taaf(), torch.tensor([0, 1, 2])
    output = network(*clips())
    weights, logits = output.step_weights, output.step_logits
    assert weights.std() > 0.1
    torch.testing.assert_close(logits.mean(dim=0), output.logits)
    torch.testing.assert_close(weights.mean(dim=0), torch.ones(3))
    expected = 0.0
    for t in range(len(weights)):
        for b, label in enumerate(labels):
            # Label smoothing gives each of the five classes 0.02, and the right class 0.9 more.
            target = torch.full((5,), 0.02)
            target[label] += 0.9
            loss = -(target * logits[t, b].log_softmax(0)).sum()
            expected = expected + weights[t, b] * loss / weights.numel()
    losses = training_loss(output, labels, LossSettings())
    torch.testing.assert_close(losses.cross_entropy, expected)
    torch.testing.assert_close(losses.total, expected)
    losses.total.backward()
    assert network.readout.head.weight.grad.abs().sum() > 0


def test_no_gradient_of_the_loss_flows_into_the_weights_of_its_steps():
    logits = torch.rand(2, 3, 5, requires_grad=True)
    weights = torch.rand(2, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2])
    step_cross_entropy(logits, weights, labels, label_smoothing=0.1).backward()
    assert logits.grad is not None
    assert weights.grad is None


class OneWeight(NoFusion):
    """A method with a mistake: one weight for each step, and not for each clip."""

    def forward(self, audio, visual):
        return Fused(audio, visual, step_weights=torch.ones(len(audio)))


def test_weights_of_another_shape_are_refused_with_one_sentence():
    network = small("add")
    network.fusion = OneWeight()
    with pytest.raises(
        MethodError, match=r"OneWeight.forward .* step_weights of \[4\] in place of"
    ):
        network(*clips())


@pytest.mark.parametrize(("custom", "is_training"), [({"weighs_loss": False}, True), ({}, False)])
def test_taaf_has_no_loss_of_steps_if_it_is_switched_off_or_evaluated(custom, is_training):
    network = taaf(**custom).train(is_training)
    output = network(*clips())
    assert output.step_logits is None
    assert output.step_weights is None


def test_taaf_with_equal_scores_changes_nothing():
    audio, visual = tokens(1), tokens(2)
    fusion = StepAttention(channels=C)
    nn.init.zeros_(fusion.score.weight)
    fused = fusion(audio, visual)
    assert torch.equal(fused.audio, audio)
    assert torch.equal(fused.visual, visual)


def test_the_smooth_parts_have_the_gradients_of_their_equations():
    generator = torch.Generator().manual_seed(5)
    streams = [
        torch.randn(3, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    ]
    fusion = StepAttention(channels=4).double()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter)
    assert torch.autograd.gradcheck(lambda a, v: fusion(a, v)[:2], streams)
    share = LearnedShare(channels=4).double()
    assert torch.autograd.gradcheck(
        lambda residual, numbers: torch.func.functional_call(share, {"share": numbers}, residual),
        (streams[0], share.share.detach().requires_grad_()),
    )


@pytest.mark.parametrize("method", ["gated", "cmqka"])
def test_a_share_starts_near_zero_and_learns(method):
    model = awake(small(method, alignment=False, tokens=16))
    shares = [model.fusion.audio_share.share, model.fusion.visual_share.share]
    for share in shares:
        assert torch.equal(share, torch.full((C,), FIRST_SHARE))
    model(*clips(side=64)).logits.square().sum().backward()
    assert all(share.grad.abs().sum() > 0 for share in shares)


@pytest.mark.parametrize("method", LATER)
@pytest.mark.parametrize("fuse", ["add", "concat"])
@pytest.mark.parametrize("split", ["deep", "shallow"])
@pytest.mark.parametrize("kernels", ["torch", "cpu"])
def test_later_methods_run_with_each_readout_patch_split_and_kernel(
    method, fuse, split, kernels, kernels_named
):
    kernels_named(kernels)
    model = small(method, fuse=fuse, patch_split=split, attention_norm=True)
    output = model(*clips(side=32 if split == "deep" else 8))
    assert output.logits.shape == (3, CLASSES)
    output.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.readout.parameters())


@pytest.mark.parametrize("method", LATER)
def test_later_methods_compute_in_bf16_with_streams_of_one_dtype(method):
    model = awake(small(method))
    seen = []
    model.fusion.register_forward_hook(
        lambda _m, inputs, fused: seen.extend([inputs[0].dtype, fused.audio.dtype])
    )
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(*clips()).logits
    logits.float().sum().backward()
    assert logits.isfinite().all()
    assert seen[0] == seen[1]


@pytest.mark.parametrize("method", LATER)
def test_a_compiled_later_method_computes_the_same(method):
    model = awake(small(method)).eval()
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*clips()).logits, model(*clips()).logits)


def test_the_mask_of_cmqka_fires_from_the_start_at_the_published_thresholds():
    model = small("cmqka", channels=64, heads=16)
    with spike_rates(model) as rates:
        model(*clips(batch=16, side=64))
    assert min(rate for name, rate in rates.items() if name.startswith("fusion")) > 0
