"""The description of a layer of neurons that every kernel takes."""

from typing import NamedTuple

from torch import Tensor

#: Axis of the channels of spikes ``[T, B, C, ...]``.
SPIKE_CHANNEL = 2


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

    def frames(self, current: Tensor) -> Tensor:
        """Return a current with channels as ``[F, C, ...]``."""
        return current if self.constant else current.flatten(0, 1)

    def spike_shape(self, current: Tensor) -> tuple[int, ...]:
        """Return the shape of the spikes that ``current`` gives, ``[T, B, C, ...]``."""
        frame = self.frame_shape(current)
        if self.pooled:
            frame = (*frame[:-2], *((side + 1) // 2 for side in frame[-2:]))
        return (self.steps, *frame)
