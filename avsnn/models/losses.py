"""The training loss: cross-entropy, semantic alignment, auxiliary cross-entropies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from avsnn.models.spikformer import Output

#: Below the norm of a single spike among 1,000 places; what is shorter counts as silent.
_SILENT = 1e-3


class LossSettings(BaseModel):
    """The training loss; the defaults are the published ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label_smoothing: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="Share of every target spread over all classes"
    )
    temperature: float = Field(
        default=0.07, gt=0.0, description="Divides the similarities of the semantic alignment"
    )
    alignment_weight: float = Field(
        default=1.0, ge=0.0, description="Share of the semantic alignment in the loss"
    )
    alignment_normalize: bool = Field(
        default=False, description="Compare directions of features, not their sizes too"
    )
    alignment_average: Literal["pairs", "positives"] = Field(
        default="pairs",
        description="Divide by all pairs of clips, as published, or by those of one class",
    )
    alignment_symmetric: bool = Field(
        default=False,
        description="Vision looks for audio too, and the mean of both counts; "
        "as published only audio looks for vision",
    )


class Losses(NamedTuple):
    """The sum to descend on and its parts, scalars; a part that a network does not have is 0.

    The parts are what enters the sum, so ``alignment`` carries its weight.
    """

    total: Tensor
    cross_entropy: Tensor
    alignment: Tensor
    auxiliary: Tensor


def over_pairs(log_probability: Tensor, same: Tensor) -> Tensor:
    """Mean over all B * B pairs, with 0 for clips of different classes."""
    return (log_probability * same).mean()


def over_positives(log_probability: Tensor, same: Tensor) -> Tensor:
    """Mean over the clips of one class with each clip, then over clips."""
    # a clip is of one class with itself, so no row is empty
    return ((log_probability * same).sum(dim=1) / same.sum(dim=1)).mean()


#: What the sum over positive pairs is divided by, by the ``average`` that asks for it.
AVERAGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pairs": over_pairs,
    "positives": over_positives,
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
    """Pull the residuals of clips of one class together across modalities.

    With ``f = mean_T`` of each, ``S = f_a f_v^T / temperature``:
    ``-mean_ij(log_softmax(S, dim=1)_ij * [y_i == y_j])`` (arXiv 2502.12488, section 3.4).
    As published the features are not normalised, the mean is over all B * B pairs instead of the
    positive ones, and only audio looks for vision; each of the three can be chosen otherwise.

    Args:
        audio: token means of the aligned audio residual ``[T, B, C]``.
        visual: the same of vision.
        labels: ``[B]``.
        temperature: divides the similarities.
        normalize: give every feature length 1. A silent one stays 0, with a bounded gradient.
        average: ``pairs``, or ``positives``: each clip's mean over its positive pairs.
        symmetric: mean of ``S`` and of its transpose, where vision looks for audio.

    Returns:
        scalar. Saved for backward: the features ``[B, C]`` and two matrices ``[B, B]`` for each
        direction.

    Raises:
        ValueError: the temperature is not positive, or there is no such average.
    """
    if temperature <= 0:
        raise ValueError(f"The temperature must be positive, not {temperature}.")
    if average not in AVERAGES:
        raise ValueError(f"There is no average '{average}'; there are {', '.join(AVERAGES)}.")
    features = [residual.mean(dim=0) for residual in (audio, visual)]
    if normalize:
        features = [functional.normalize(f, dim=1, eps=_SILENT) for f in features]
    similarity = features[0] @ features[1].T / temperature
    same = labels[:, None] == labels[None, :]
    directions = [similarity, similarity.T] if symmetric else [similarity]
    losses = [-AVERAGES[average](functional.log_softmax(s, dim=1), same) for s in directions]
    return torch.stack(losses).mean()


def training_loss(
    output: Output,
    labels: Tensor,
    settings: LossSettings,
    *,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> Losses:
    """All that a network is trained on.

    Args:
        output: what the network returned; alignment counts where it says it aligned.
        labels: ``[B]``, int64.
        settings: the smoothing of every cross-entropy, and the alignment. Auxiliary cross-entropies
            have weight 1.
        gather: ``[B, ...]`` of this process to the rows of all that train together, with gradients;
            the alignment is then over all of their clips. None, as published, is each its own.

    Returns:
        total and parts, scalars.
    """

    def cross_entropy(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)

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
