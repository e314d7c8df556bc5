import math

import pytest
import torch
from pydantic import ValidationError

from avsnn.models.losses import AVERAGES, LossSettings, semantic_alignment, training_loss
from avsnn.models.spikformer import Output

from .golden import arrays


@pytest.mark.parametrize("case", range(3))
def test_semantic_alignment_is_the_published_loss_and_gradient(case):
    units = {k.removeprefix(f"con{case}_"): v for k, v in arrays("units").items()}
    audio = torch.from_numpy(units["f1"]).requires_grad_()
    visual = torch.from_numpy(units["f2"]).requires_grad_()
    loss = semantic_alignment(
        audio, visual, torch.from_numpy(units["label"]), temperature=float(units["T"])
    )
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.from_numpy(units["loss"]), rtol=1e-6, atol=0)
    torch.testing.assert_close(audio.grad, torch.from_numpy(units["g1"]), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(visual.grad, torch.from_numpy(units["g2"]), rtol=1e-5, atol=1e-7)


def test_label_smoothing_is_the_published_loss_and_gradient():
    units = arrays("units")
    logits = torch.from_numpy(units["ls_logits"]).requires_grad_()
    labels = torch.from_numpy(units["ls_label"])
    losses = training_loss(Output(logits), labels, LossSettings())
    losses.total.backward()
    theirs = torch.from_numpy(units["ls_loss"])
    torch.testing.assert_close(losses.total.detach(), theirs, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        logits.grad, torch.from_numpy(units["ls_grad"]), rtol=1e-5, atol=1e-7
    )


def test_residuals_that_were_not_aligned_add_nothing_to_the_loss():
    residual = torch.rand(4, 3, 8)
    labels = torch.tensor([0, 1, 1])
    output = Output(torch.randn(3, 2), residual, residual, (torch.randn(3, 2),), aligned=False)
    losses = training_loss(output, labels, LossSettings())
    assert losses.alignment == 0
    assert losses.auxiliary > 0
    assert losses.total == losses.cross_entropy + losses.auxiliary
    aligned = training_loss(output._replace(aligned=True), labels, LossSettings())
    assert aligned.total == aligned.cross_entropy + aligned.alignment + aligned.auxiliary
    assert aligned.alignment != 0


def rows(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio, visual = torch.rand(2, 3, 5, 8, generator=generator, dtype=torch.float64)
    return audio, visual, torch.tensor([0, 1, 1, 2, 1])


def one_by_one(audio, visual, labels, *, normalize, average):
    """Compute the alignment from audio to vision by loops over clips, with Python numbers."""
    f, g = (x.mean(dim=0).tolist() for x in (audio, visual))
    if normalize:
        f, g = ([[v / math.hypot(*row) for v in row] for row in rows] for rows in (f, g))
    total = 0.0
    for a, label in zip(f, labels.tolist(), strict=True):
        scores = [sum(p * q for p, q in zip(a, b, strict=True)) / 0.07 for b in g]
        norm = math.log(sum(math.exp(score) for score in scores))
        positives = [
            score - norm
            for score, other in zip(scores, labels.tolist(), strict=True)
            if other == label
        ]
        total -= sum(positives) / {"pairs": len(g), "positives": len(positives)}[average]
    return total / len(f)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_every_alignment_is_its_sum_over_clips(normalize, average, symmetric):
    audio, visual, labels = rows()
    choice = {"normalize": normalize, "average": average}
    there = one_by_one(audio, visual, labels, **choice)
    back = one_by_one(visual, audio, labels, **choice)
    expected = (there + back) / 2 if symmetric else there
    loss = semantic_alignment(
        audio, visual, labels, temperature=0.07, symmetric=symmetric, **choice
    )
    assert loss.item() == pytest.approx(expected)
    if symmetric:
        assert there != pytest.approx(back)


def test_the_published_alignment_is_what_is_used_unless_another_is_named():
    audio, visual, labels = rows()
    published = semantic_alignment(audio, visual, labels, temperature=0.07)
    assert published.item() == pytest.approx(
        one_by_one(audio, visual, labels, normalize=False, average="pairs")
    )


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"alignment_normalize": True}, {"normalize": True}),
        ({"alignment_average": "positives"}, {"average": "positives"}),
        ({"alignment_symmetric": True}, {"symmetric": True}),
    ],
)
def test_settings_reach_the_alignment(fields, arguments):
    audio, visual, labels = rows()
    output = Output(torch.zeros(5, 3, dtype=torch.float64), audio, visual, aligned=True)
    expected = semantic_alignment(audio, visual, labels, **{"temperature": 0.07, **arguments})
    losses = training_loss(output, labels, LossSettings(**fields))
    assert losses.alignment == expected
    assert losses.alignment != training_loss(output, labels, LossSettings()).alignment
    doubled = training_loss(output, labels, LossSettings(alignment_weight=2.0, **fields))
    assert doubled.alignment == 2 * expected
    assert doubled.total == doubled.cross_entropy + doubled.alignment
    without = training_loss(output, labels, LossSettings(alignment_weight=0.0, **fields))
    assert without.total == without.cross_entropy


def test_normalised_features_of_any_size_align_alike_and_silent_ones_do_no_harm():
    audio, visual, labels = rows()
    choice = {"temperature": 0.07, "normalize": True}
    loss = semantic_alignment(audio, visual, labels, **choice)
    louder = semantic_alignment(5 * audio, visual / 3, labels, **choice)
    assert loss.item() == pytest.approx(louder.item())
    silent = torch.zeros_like(audio).requires_grad_()
    semantic_alignment(silent, visual, labels, **choice).backward()
    assert silent.grad.isfinite().all()
    assert 0 < silent.grad.abs().max() < 1e4


def test_an_unknown_average_is_refused():
    audio, visual, labels = rows()
    with pytest.raises(ValueError, match="no average 'rows'; there are pairs, positives"):
        semantic_alignment(audio, visual, labels, temperature=0.07, average="rows")


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.0},
        {"label_smoothing": 1.0},
        {"alignment_weight": -1.0},
        {"alignment_average": "rows"},
        {"weight": 1.0},
    ],
)
def test_impossible_loss_settings_are_refused(fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        LossSettings(**fields)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="temperature must be positive"):
        semantic_alignment(
            torch.ones(1, 2, 3), torch.ones(1, 2, 3), torch.zeros(2).long(), temperature=0.0
        )


def test_a_loss_of_bfloat16_outputs_is_computed_in_float32():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 6, generator=generator).bfloat16()
    residuals = [torch.randn(4, 8, 16, generator=generator).bfloat16() for _ in range(2)]
    labels = torch.arange(8) % 6
    settings = LossSettings()
    rounded, exact = (
        training_loss(
            Output(
                logits=logits.to(dtype),
                audio_residual=residuals[0].to(dtype),
                visual_residual=residuals[1].to(dtype),
                aligned=True,
            ),
            labels,
            settings,
        )
        for dtype in (torch.bfloat16, torch.float32)
    )
    assert rounded.total.dtype == torch.float32
    for one, other in zip(rounded, exact, strict=True):
        assert torch.equal(one, other)
