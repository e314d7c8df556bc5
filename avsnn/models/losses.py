"""The training loss: cross-entropy, semantic alignment, auxiliary cross-entropies."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from avsnn.models.spikformer import Output


class Losses(NamedTuple):
    """The sum to descend on and its parts, scalars; a part that a network does not have is 0."""

    total: Tensor
    cross_entropy: Tensor
    alignment: Tensor
    auxiliary: Tensor


def semantic_alignment(
    audio: Tensor, visual: Tensor, labels: Tensor, *, temperature: float
) -> Tensor:
    """Pull the residuals of clips of one class together across modalities.

    With ``f = mean_T`` of each, ``S = f_a f_v^T / temperature``:
    ``-mean_ij(log_softmax(S, dim=1)_ij * [y_i == y_j])`` (arXiv 2502.12488, section 3.4).
    As published the features are not normalised, the mean is over all B * B pairs instead of the
    positive ones, and only audio looks for vision.

    Args:
        audio: token means of the aligned audio residual ``[T, B, C]``.
        visual: the same of vision.
        labels: ``[B]``.
        temperature: divides the similarities.

    Returns:
        scalar.

    Raises:
        ValueError: the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"The temperature must be positive, not {temperature}.")
    similarity = audio.mean(dim=0) @ visual.mean(dim=0).T / temperature
    same = labels[:, None] == labels[None, :]
    return -(functional.log_softmax(similarity, dim=1) * same).mean()


def training_loss(
    output: Output, labels: Tensor, *, label_smoothing: float, temperature: float
) -> Losses:
    """All that a network is trained on, each part with weight 1.

    Args:
        output: what the network returned; alignment counts where it says it aligned.
        labels: ``[B]``, int64.
        label_smoothing: share of the target spread over all classes, in every cross-entropy.
        temperature: of the semantic alignment.

    Returns:
        total and parts, scalars.

    Raises:
        ValueError: the temperature is not positive and there is alignment.
    """

    def cross_entropy(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    main = cross_entropy(output.logits)
    alignment = auxiliary = torch.zeros_like(main)
    if output.aligned and output.audio_residual is not None and output.visual_residual is not None:
        alignment = semantic_alignment(
            output.audio_residual, output.visual_residual, labels, temperature=temperature
        )
    for logits in output.auxiliary:
        auxiliary = auxiliary + cross_entropy(logits)
    return Losses(main + alignment + auxiliary, main, alignment, auxiliary)
