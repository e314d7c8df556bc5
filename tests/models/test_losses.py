import pytest
import torch

from avsnn.models.losses import semantic_alignment, training_loss
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
    losses = training_loss(Output(logits), labels, label_smoothing=0.1, temperature=0.07)
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
    losses = training_loss(output, labels, label_smoothing=0.1, temperature=0.07)
    assert losses.alignment == 0
    assert losses.auxiliary > 0
    assert losses.total == losses.cross_entropy + losses.auxiliary
    aligned = training_loss(
        output._replace(aligned=True), labels, label_smoothing=0.1, temperature=0.07
    )
    assert aligned.total == aligned.cross_entropy + aligned.alignment + aligned.auxiliary
    assert aligned.alignment != 0


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="temperature must be positive"):
        semantic_alignment(
            torch.ones(1, 2, 3), torch.ones(1, 2, 3), torch.zeros(2).long(), temperature=0.0
        )
