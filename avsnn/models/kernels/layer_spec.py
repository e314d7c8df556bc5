"""The description of a layer of neurons that every kernel takes."""

from typing import NamedTuple

from torch import Tensor


class LayerSpec(NamedTuple):
    """Neurons with a hard reset, a sigmoid surrogate and no gradient through time.

    Attributes:
        steps: number T of time steps.
        constant: whether the same current is the input of every step.
        pooled: whether 3x3 max pooling with stride 2 and padding 1 follows the spikes.
        tau: membrane time constant, in steps.
        threshold: membrane potential at which a neuron fires.
        slope: slope of the surrogate.
    """

    steps: int
    constant: bool
    pooled: bool
    tau: float
    threshold: float
    slope: float

    @property
    def channel(self) -> int:
        """Axis of the channels of a current that has channels."""
        return 1 if self.constant else 2

    def frame_shape(self, current: Tensor) -> tuple[int, ...]:
        """Return the shape of one time step of ``current``, ``[B, C, ...]``."""
        return tuple(current.shape if self.constant else current.shape[1:])

    def spike_shape(self, current: Tensor) -> tuple[int, ...]:
        """Return the shape of the spikes that ``current`` gives, ``[T, B, C, ...]``."""
        batch, channels, *sides = self.frame_shape(current)
        if self.pooled:
            sides = [(side + 1) // 2 for side in sides]
        return (self.steps, batch, channels, *sides)
