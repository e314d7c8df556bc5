"""What every kernel is told of a layer of neurons."""

from typing import NamedTuple


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
