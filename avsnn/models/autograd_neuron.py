"""Neurons written in plain torch, one time step after another, and differentiated by autograd.

The published neuron has operators of its own, which ``neuron.py`` calls. Every other neuron runs on
this file, and the tests compare the operators with this file. Autograd is slower than the operators
and saves more memory for the backward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avsnn.models.neuron_constants import RESETS
from avsnn.models.surrogate import fire

if TYPE_CHECKING:
    from avsnn.models.neuron_constants import NeuronConstants


def autograd_lif(
    current: Tensor, *, steps: int | None, neuron: NeuronConstants, rate: float | Tensor
) -> Tensor:
    """Compute the spikes of leaky integrate-and-fire neurons with any constants.

    Args:
        current: input current ``[T, ...]``; or ``[...]``, the same at every step, with ``steps``.
        steps: T of a constant current; None if ``current`` has its own T axis.
        neuron: constants of the neurons; ``neuron.tau`` is not read.
        rate: ``1 / tau``; a scalar tensor gets a gradient.

    Returns:
        spikes ``[T, ...]``. Saved for backward: the potentials ``[T, ...]``; the same amount again
        if the rate is learned; and the same amount again if the reset is hard and the gradient goes
        through time.
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
        # The published code passes no gradient through the reset, so the spikes are detached even
        # if the membrane potential is not.
        membrane = reset(kept, spikes.detach(), neuron.threshold)
        train.append(spikes)
    return torch.stack(train)
