"""The training loss: cross-entropy, semantic alignment, auxiliary cross-entropies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from avsnn.pydantic_base import StrictModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from avsnn.models.spikformer import Output

#: A feature shorter than this counts as silent. One spike among 1,000 places has norm 1e-3.
_SILENT = 1e-3


class LossSettings(StrictModel):
    """All constants of the training loss; the defaults are the published values."""

    label_smoothing: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="Share of every target spread over all classes"
    )
    temperature: float = Field(
        default=0.07,
        gt=0.0,
        le=1e6,
        description="Divisor of the similarities in the semantic alignment",
    )
    alignment_weight: float = Field(
        default=1.0, ge=0.0, le=1e6, description="Factor of the semantic alignment in the loss"
    )
    alignment_normalize: bool = Field(
        default=False,
        description="Give every feature length 1, so that only directions are compared",
    )
    alignment_average: Literal["pairs", "positives"] = Field(
        default="pairs",
        description="Divisor of the semantic alignment: the number of all pairs of clips "
        "(pairs, as published), or the number of pairs of one class (positives)",
    )
    alignment_symmetric: bool = Field(
        default=False,
        description="Mean of the alignment of audio to vision and of vision to audio; "
        "as published, only audio to vision",
    )


class Losses(NamedTuple):
    """The training loss and the parts of the sum, scalars; a part that a network lacks is 0.

    Attributes:
        total: the sum of the three parts.
        cross_entropy: cross-entropy of the logits, or of the time steps.
        alignment: semantic alignment, times its weight.
        auxiliary: sum of the cross-entropies of the auxiliary scores.
    """

    total: Tensor
    cross_entropy: Tensor
    alignment: Tensor
    auxiliary: Tensor


def mean_over_pairs(log_probability: Tensor, same: Tensor) -> Tensor:
    """Return the mean over all B * B pairs, with 0 for pairs of different classes."""
    return (log_probability * same).mean()


def _at_least_float32(values: Tensor) -> Tensor:
    """Return values in float32 or better; under autocast a network gives bfloat16.

    A loss in bfloat16 has three digits, which is too few to compare epochs.
    """
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def _product(audio: Tensor, visual: Tensor) -> Tensor:
    """Return ``audio @ visual.T``, exact in float32 on every device."""
    if audio.is_cuda:
        # A GPU may round the operands of a product in float32 to TF32, and never those in float64.
        return (audio.double() @ visual.double().T).to(audio.dtype)
    return audio @ visual.T


def mean_over_positives(log_probability: Tensor, same: Tensor) -> Tensor:
    """Return the mean over clips of each clip's mean over its pairs of one class."""
    # A clip has the same class as itself, so every row has a pair and the divisor is not 0.
    return ((log_probability * same).sum(dim=1) / same.sum(dim=1)).mean()


#: Averages of the log probabilities of positive pairs, by the value of ``average``.
AVERAGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pairs": mean_over_pairs,
    "positives": mean_over_positives,
}


def semantic_alignment(
    audio: Tensor,
    visual: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    normalize: bool = False,
    average: str = "pairs",
    symmetric: bool = False,
) -> Tensor:
    """Return the semantic alignment loss: it pulls clips of one class together across modalities.

    With the features ``f = mean_T`` of each residual and ``S = f_a f_v^T / temperature``, the loss
    is ``-mean_ij(log_softmax(S, dim=1)_ij * [y_i == y_j])`` (arXiv 2502.12488, section 3.4). As
    published, the features are not normalised, the mean is over all B * B pairs instead of the
    positive pairs, and the loss goes from audio to vision only. The last three arguments change
    each of these choices.

    Args:
        audio: token means of the aligned audio residual, ``[T, B, C]``.
        visual: token means of the aligned visual residual, ``[T, B, C]``.
        labels: ``[B]``.
        temperature: divisor of the similarities.
        normalize: give every feature length 1. A silent feature stays 0, with a bounded gradient.
        average: ``pairs`` for the mean over all pairs, or ``positives`` for the mean over clips of
            each clip's mean over its positive pairs.
        symmetric: mean of the losses of ``S`` (audio to vision) and ``S^T`` (vision to audio).

    Returns:
        scalar. Saved for backward: the features ``[B, C]``, and two matrices ``[B, B]`` for each
        direction.

    Raises:
        ValueError: the temperature is not positive, or there is no such average.
    """
    if temperature <= 0:
        raise ValueError(f"The temperature must be positive, not {temperature}.")
    if average not in AVERAGES:
        raise ValueError(f"There is no average '{average}'; there are {', '.join(AVERAGES)}.")
    features = [_at_least_float32(residual).mean(dim=0) for residual in (audio, visual)]
    if normalize:
        features = [functional.normalize(f, dim=1, eps=_SILENT) for f in features]
    similarity = _product(*features) / temperature
    same = labels[:, None] == labels[None, :]
    directions = [similarity, similarity.T] if symmetric else [similarity]
    losses = [-AVERAGES[average](functional.log_softmax(s, dim=1), same) for s in directions]
    return torch.stack(losses).mean()


def step_cross_entropy(
    step_logits: Tensor, step_weights: Tensor, labels: Tensor, *, label_smoothing: float
) -> Tensor:
    """Return the weighted mean of the cross-entropies of all time steps, ``mean_tb(w CE)``.

    With equal weights, the loss is that of temporal efficient training (arXiv 2202.11946). Weights
    for the steps come from arXiv 2505.14535. No gradient flows into the weights, which is our
    choice: the loss would teach the weights to choose the step with the smallest loss.

    Args:
        step_logits: class scores of each step alone, ``[T, B, classes]``.
        step_weights: weights of the steps, ``[T, B]``.
        labels: ``[B]``, int64.
        label_smoothing: share of every target that is spread over all classes.

    Returns:
        scalar.
    """
    # A cross-entropy takes the classes in the second dimension.
    scores = _at_least_float32(step_logits).permute(1, 2, 0)
    targets = labels.unsqueeze(1).expand(-1, len(step_logits))
    losses = functional.cross_entropy(
        scores, targets, reduction="none", label_smoothing=label_smoothing
    )
    return (losses * step_weights.detach().T).mean()


def training_loss(
    output: Output,
    labels: Tensor,
    settings: LossSettings,
    *,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> Losses:
    """Return the training loss of a batch and its parts.

    Args:
        output: output of the network; the alignment is computed only if ``output.aligned``, and
            the cross-entropy is that of the time steps if the output has their weights.
        labels: ``[B]``, int64.
        settings: label smoothing of every cross-entropy, and the alignment. Auxiliary
            cross-entropies have weight 1.
        gather: function that turns ``[B, ...]`` of this process into the rows of all processes that
            train together, with gradients; the alignment is then over the clips of all processes.
            None, as published, is the alignment over the clips of this process.
    """

    def cross_entropy(logits: Tensor) -> Tensor:
        exact = _at_least_float32(logits)
        return functional.cross_entropy(exact, labels, label_smoothing=settings.label_smoothing)

    if output.step_logits is not None and output.step_weights is not None:
        main = step_cross_entropy(
            output.step_logits,
            output.step_weights,
            labels,
            label_smoothing=settings.label_smoothing,
        )
    else:
        main = cross_entropy(output.logits)
    alignment = auxiliary = torch.zeros_like(main)
    if output.aligned and output.audio_residual is not None and output.visual_residual is not None:
        audio, visual, same = output.audio_residual, output.visual_residual, labels
        if gather is not None:
            audio, visual = (gather(r.transpose(0, 1)).transpose(0, 1) for r in (audio, visual))
            same = gather(labels)
        alignment = settings.alignment_weight * semantic_alignment(
            audio,
            visual,
            same,
            temperature=settings.temperature,
            normalize=settings.alignment_normalize,
            average=settings.alignment_average,
            symmetric=settings.alignment_symmetric,
        )
    for logits in output.auxiliary:
        auxiliary = auxiliary + cross_entropy(logits)
    return Losses(main + alignment + auxiliary, main, alignment, auxiliary)
