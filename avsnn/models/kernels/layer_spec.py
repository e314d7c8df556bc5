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


class AttentionSpec(NamedTuple):
    """Attention and the neurons on its output; the neurons are those of ``LayerSpec``.

    Attributes:
        heads: number of heads.
        layout: ``tokens`` for attention over the tokens of each time step; ``steps`` for attention
            over the time steps of each token; ``interleaved`` for the same attention over time
            steps with heads and time interleaved in its result, as published.
        tau: membrane time constant, in steps.
        threshold: membrane potential at which a neuron fires.
        slope: slope of the surrogate.
    """

    heads: int
    layout: str
    tau: float
    threshold: float
    slope: float

    def neurons(self, steps: int) -> LayerSpec:
        """Return the neurons of the attention for T time steps."""
        return LayerSpec(steps, False, False, self.tau, self.threshold, self.slope)
