"""What every kernel is told of a layer of neurons."""

from typing import NamedTuple

from torch import Tensor


class Layer(NamedTuple):
    """Neurons with a hard reset, a sigmoid surrogate and a past that gets no gradient.

    Attributes:
        steps: T.
        constant: every step reads the same current.
        pooled: 3x3 max pooling with stride 2 and padding 1 stands behind the spikes.
        tau: membrane time constant, in steps.
        threshold: potential at which a neuron fires.
        slope: of the surrogate.
    """

    steps: int
    constant: bool
    pooled: bool
    tau: float
    threshold: float
    slope: float

    def frame(self, current: Tensor) -> tuple[int, ...]:
        """The shape of one step of a current, ``[B, C, ...]``."""
        return tuple(current.shape if self.constant else current.shape[1:])

    def spikes(self, current: Tensor) -> tuple[int, ...]:
        """The shape of its spikes, ``[T, B, C, ...]``."""
        batch, channels, *sides = self.frame(current)
        if self.pooled:
            sides = [(side + 1) // 2 for side in sides]
        return (self.steps, batch, channels, *sides)
