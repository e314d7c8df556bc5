"""Strategies of balanced training: their coefficients, and what they do to the gradients."""

from math import sqrt, tanh

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from avsnn.models.balance import NONE, STRATEGIES, BalanceSettings, Strategy
from avsnn.models.losses import LossSettings, training_loss
from avsnn.models.methods import METHODS, TwoStreams
from avsnn.models.spikformer import AudioVisualSpikformer, Output

from .networks import awake, clips, small

LABELS = torch.tensor([0, 1, 2, 3])
SMOOTHING = LossSettings().label_smoothing
TWO_STREAMS = [name for name, method in METHODS.items() if isinstance(method, TwoStreams)]
NAMES = [name for name in STRATEGIES if name != NONE]
each_strategy = pytest.mark.parametrize("name", NAMES)
Gradients = dict[str, Tensor]


def network(method: str = "s-cmrl", **fields) -> AudioVisualSpikformer:
    model = awake(small(method, **fields)).train()
    # With the weights of `awake`, a head would be sure of one class for every clip.
    for name, weight in model.readout.named_parameters():
        nn.init.normal_(weight, std=0.2 if name.endswith("weight") else 0.0)
    model.gives_shares = True
    return model


def strategy_of(name: str, model: AudioVisualSpikformer, **constants) -> Strategy:
    settings = BalanceSettings(strategy=name, **constants)
    return STRATEGIES[name](
        model, settings, label_smoothing=SMOOTHING, mean_over_processes=lambda values: values
    )


def gradients_of(model: nn.Module) -> Gradients:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def balanced(
    name: str, model: AudioVisualSpikformer, labels: Tensor = LABELS, **constants
) -> tuple[Output, Gradients, Gradients]:
    """Return the output of a step, and its gradients before and after the strategy."""
    strategy = strategy_of(name, model, **constants)
    model.zero_grad()
    output = model(*clips(len(labels)))
    losses = training_loss(output, labels, LossSettings())
    strategy.note(output, labels, weight=1.0)
    losses.total.backward()
    before = gradients_of(model)
    torch.manual_seed(5)
    strategy.change_gradients()
    return output, before, gradients_of(model)


def score(logits: Tensor, labels: Tensor = LABELS) -> float:
    return sum(
        float(row.softmax(0)[label]) for row, label in zip(logits.detach(), labels, strict=True)
    )


def is_encoder(name: str, stream: str) -> bool:
    return name.startswith((f"{stream}_patch.", f"{stream}_mlp."))


@pytest.mark.parametrize("method", TWO_STREAMS)
@pytest.mark.parametrize("fuse", ["add", "concat"])
def test_the_shares_of_both_streams_are_the_logits(method: str, fuse: str) -> None:
    if fuse == "concat" and not METHODS[method].chooses_readout:
        pytest.skip("the method has a readout of its own")
    model = network(method, fuse=fuse)
    torch.manual_seed(3)
    output = model(*clips())
    if method == "cmci":
        assert all(map(torch.equal, output.shares, output.auxiliary))
    else:
        torch.testing.assert_close(sum(output.shares), output.logits)
    model.gives_shares = False
    torch.manual_seed(3)
    without = model(*clips())
    assert torch.equal(without.logits, output.logits)
    assert without.shares == ()


@pytest.mark.parametrize("method", ["s-cmrl", "concat", "cmci"])
def test_ogm_ge_scales_the_encoder_of_the_stronger_stream_and_adds_noise(method: str) -> None:
    model = network(method)
    output, before, after = balanced("ogm-ge", model, alpha=0.3)
    audio, visual = map(score, output.shares)
    ratios = {"audio": audio / visual, "visual": visual / audio}
    assert max(ratios.values()) > 1
    torch.manual_seed(5)
    for stream in ("audio", "visual"):
        k = 1 - tanh(0.3 * ratios[stream]) if ratios[stream] > 1 else 1.0
        for name, gradient in before.items():
            if is_encoder(name, stream) and gradient.ndim > 1:
                noise = torch.randn_like(gradient) * gradient.std()
                torch.testing.assert_close(after[name], k * gradient + noise)
                before[name] = after[name]
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", TWO_STREAMS)
def test_ogm_ge_shrinks_the_gradient_of_the_stronger_stream_alone(method: str) -> None:
    model = network(method)
    found = {}
    for alpha in (0.0, 2.0):
        torch.manual_seed(2)
        output, _, found[alpha] = balanced("ogm-ge", model, alpha=alpha)
    audio, visual = map(score, output.shares)
    stronger = "audio" if audio > visual else "visual"
    for name, gradient in found[2.0].items():
        if is_encoder(name, stronger) and gradient.ndim > 1 and gradient.any():
            assert gradient.norm() < found[0.0][name].norm()
        else:
            assert torch.equal(gradient, found[0.0][name])


@pytest.mark.parametrize("method", ["s-cmrl", "concat", "cmci"])
def test_iemf_scales_the_gradient_of_the_fusion_and_of_its_head(method: str) -> None:
    output, before, after = balanced("iemf", network(method))
    audio, visual, both = map(score, (*output.shares, output.logits))
    xi = 1 + tanh(1 - (audio + visual) / (2 * both))
    assert abs(xi - 1) > 0.01
    for name, gradient in before.items():
        factor = xi if name.startswith(("fusion.", "readout.head.")) else 1.0
        torch.testing.assert_close(after[name], factor * gradient)


def test_iemf_grows_the_gradient_of_the_fusion_where_the_streams_alone_are_weak() -> None:
    model = network("concat")
    with torch.no_grad():
        labels = model(*clips(4)).logits.argmax(1)
    output, before, after = balanced("iemf", model, labels)
    assert max(score(share, labels) for share in output.shares) < score(output.logits, labels)
    assert after["readout.head.weight"].norm() > before["readout.head.weight"].norm()


@pytest.mark.parametrize("in_conflict", [False, True])
def test_mmpareto_mixes_the_gradients_of_the_joint_and_of_the_own_loss(in_conflict: bool) -> None:
    model = network("concat")
    if in_conflict:
        # The joint loss pulls the streams against their own shares.
        model.readout.head.register_forward_hook(lambda _module, _inputs, logits: -logits)
    output, before, after = balanced("mmpareto", model)
    output = model(*clips(4))
    conflicts = []
    for stream, share in zip(("audio", "visual"), output.shares, strict=True):
        names = [name for name in before if is_encoder(name, stream)]
        loss = functional.cross_entropy(share, LABELS, label_smoothing=SMOOTHING)
        own = torch.cat(
            [
                gradient.flatten()
                for gradient in torch.autograd.grad(
                    loss, [model.get_parameter(name) for name in names], retain_graph=True
                )
            ]
        )
        joint = torch.cat([before[name].flatten() for name in names])
        weights = torch.linspace(0, 1, 100_001)
        conflicts.append(bool(joint @ own <= 0))
        norms = [
            (w * w) * float(joint @ joint)
            + ((1 - w) * (1 - w)) * float(own @ own)
            + (2 * w * (1 - w)) * float(joint @ own)
            for w in (weights,)
        ]
        a = float(weights[norms[0].argmin()]) if conflicts[-1] else 0.5
        mixed = 2 * a * joint + 2 * (1 - a) * own
        expected = 1.5 * mixed * (joint + own).norm() / mixed.norm()
        found = torch.cat([after[name].flatten() for name in names])
        assert (found - expected).norm() < 1e-3 * expected.norm()
    assert all(conflicts) == in_conflict
    others = [n for n in before if not is_encoder(n, "audio") and not is_encoder(n, "visual")]
    assert all(torch.equal(after[name], before[name]) for name in others)


@pytest.mark.parametrize("method", TWO_STREAMS)
@each_strategy
def test_a_strategy_leaves_the_gradients_finite_and_does_not_change_what_it_reads(
    method: str, name: str
) -> None:
    model = network(method)
    torch.manual_seed(2)
    _, before, after = balanced(name, model)
    assert all(gradient.isfinite().all() for gradient in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before)
    plain = network(method)
    torch.manual_seed(2)
    training_loss(plain(*clips(4)), LABELS, LossSettings()).total.backward()
    # The gradients of a second pass through the same graph change nothing of the first pass.
    expected = gradients_of(plain)
    assert all(torch.equal(before[key], expected[key]) for key in expected)


@each_strategy
def test_the_parts_of_a_batch_count_like_the_whole_batch(name: str) -> None:
    model = network().eval()
    whole, parts = strategy_of(name, model), strategy_of(name, model)
    audio, visual = clips(4)
    found = []
    for strategy, size in ((whole, 4), (parts, 2)):
        model.zero_grad()
        for part in torch.arange(4).split(size):
            output = model(audio[part], visual[part])
            strategy.note(output, LABELS[part], weight=size / 4)
            (functional.cross_entropy(output.logits, LABELS[part]) * size / 4).backward()
        torch.manual_seed(5)
        strategy.change_gradients()
        found.append(gradients_of(model))
    for key in found[0]:
        torch.testing.assert_close(found[1][key], found[0][key], rtol=1e-3, atol=1e-5)


def test_a_strategy_that_nobody_knows_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="there is no strategy 'ogm'; did you mean ogm-ge"):
        BalanceSettings(strategy="ogm")


def test_the_smallest_norm_is_that_of_the_triangle_of_both_gradients() -> None:
    from avsnn.models.balance import pareto_factors

    joint, own = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    # The point of the line between both that is nearest to 0 is (0.2, 0.4), with norm sqrt(0.2).
    a = 0.6
    scale = 1.5 * 1.0 / (2 * sqrt(0.2))
    of_joint, of_own = pareto_factors([(joint, own)])
    assert float(of_joint) == pytest.approx(2 * a * scale)
    assert float(of_own) == pytest.approx(2 * (1 - a) * scale)
