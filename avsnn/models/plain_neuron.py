"""Neurons written down plainly, differentiated by autograd: every choice, at autograd's price.

The published neuron has operations of its own in ``neuron.py``; this is what all others run on,
and what those operations are tested against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avsnn.models.surrogate import fire

if TYPE_CHECKING:
    from collections.abc import Callable

    from avsnn.models.neuron import NeuronConstants


def hard_reset(potential: Tensor, spikes: Tensor, threshold: float) -> Tensor:
    """``h * (1 - s)``: a neuron that fired starts again from rest."""
    return potential * (1.0 - spikes)


def soft_reset(potential: Tensor, spikes: Tensor, threshold: float) -> Tensor:
    """``h - threshold * s``: a neuron that fired keeps what lay above its threshold.

    Reset by subtraction (Rueckauer et al. 2017, section 2.2).
    """
    return potential - threshold * spikes


#: What is left of the potential after a spike, by the ``reset`` setting.
RESETS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "hard": hard_reset,
    "soft": soft_reset,
}


def plain_lif(
    current: Tensor, *, steps: int | None, neuron: NeuronConstants, rate: float | Tensor
) -> Tensor:
    """Spikes of any neuron, one step of time after the other.

    Args:
        current: input current ``[T, ...]``; or ``[...]``, the same at every step, with ``steps``.
        steps: T of a constant current; None where ``current`` has its own T axis.
        neuron: everything but the time constant.
        rate: ``1 / tau``; a scalar tensor gets a gradient.

    Returns:
        spikes ``[T, ...]``. Saved for backward: the potentials ``[T, ...]``, as much again with a
        learned rate, and as much again with a gradient through time and a hard reset.
    """
    reset = RESETS[neuron.reset]
    currents = [current] * steps if steps else current.unbind(0)
    membrane = torch.zeros_like(currents[0])
    train = []
    for x in currents:
        potential = membrane + (x - membrane) * rate
        spikes = fire(
            potential,
            threshold=neuron.threshold,
            surrogate=neuron.surrogate,
            slope=neuron.slope,
        )
        kept = potential.detach() if neuron.detach_membrane else potential
        # as published, no gradient passes through the reset, whatever happens to the membrane
        membrane = reset(kept, spikes.detach(), neuron.threshold)
        train.append(spikes)
    return torch.stack(train)
