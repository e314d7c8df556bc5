"""The constants that all neurons of a layer share, and the resets that a layer can name."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def hard_reset(potential: Tensor, spikes: Tensor, threshold: float) -> Tensor:
    """Return ``h * (1 - s)``: a neuron that fired starts again from rest."""
    return potential * (1.0 - spikes)


def soft_reset(potential: Tensor, spikes: Tensor, threshold: float) -> Tensor:
    """Return ``h - threshold * s``: a neuron that fired keeps the potential above its threshold.

    Reset by subtraction (Rueckauer et al. 2017, section 2.2).
    """
    return potential - threshold * spikes


#: Function that gives the membrane potential after a spike, by the value of the ``reset`` setting.
RESETS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "hard": hard_reset,
    "soft": soft_reset,
}


class NeuronConstants(NamedTuple):
    """The constants that all neurons of a layer share.

    Attributes:
        tau: membrane time constant, in steps; the start value if tau is learned.
        threshold: membrane potential at which a neuron fires.
        slope: slope of the surrogate, or width of the rectangular surrogate.
        detach_membrane: whether the gradient through time is cut.
        reset: name of the reset (``RESETS``).
        surrogate: name of the surrogate (``surrogate.SURROGATES``).
        learn_tau: whether tau is a parameter.
    """

    tau: float
    threshold: float
    slope: float
    detach_membrane: bool
    reset: str = "hard"
    surrogate: str = "sigmoid"
    learn_tau: bool = False

    @property
    def has_kernels(self) -> bool:
        """Whether the package ``kernels`` computes this neuron: only the published neuron."""
        published = self.reset == "hard" and self.surrogate == "sigmoid" and not self.learn_tau
        return published and self.detach_membrane

    def check(self) -> None:
        """Refuse constants that no neuron can have.

        Raises:
            ValueError: tau < 1, or an unknown reset.
        """
        if self.tau < 1.0:
            raise ValueError(f"tau must be at least 1 step, not {self.tau}.")
        if self.reset not in RESETS:
            raise ValueError(f"There is no reset '{self.reset}'; there are {', '.join(RESETS)}.")
