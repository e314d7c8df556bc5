"""Leaky integrate-and-fire neurons, and a way to watch them fire.

The neuron (arXiv 2502.12488, section 3.1) in discrete time, ``v[-1] = 0`` for every input::

    h[t] = v[t-1] + (x[t] - v[t-1]) / tau      potential before firing
    s[t] = 1 where h[t] >= threshold           equality fires
    v[t] = h[t] * (1 - s[t])                   hard reset

and in the backward pass ``ds/dh = slope * sig(slope * u) * (1 - sig(slope * u))`` with
``u = h - threshold``; no gradient passes through the reset.

This one, detached from the past as published, is an operator of its own (``kernels``), together
with the batch norm before it and the pooling behind it. Other resets and surrogates, a time
constant that is learned and gradients through time run on ``plain_neuron.py``.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from avsnn.models.kernels import operations
from avsnn.models.plain_neuron import RESETS, plain_lif
from avsnn.models.recompute import replaying
from avsnn.models.surrogate import slope_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from avsnn.models.layers import BatchNorm


ENOUGH_PLANES = 64


class NeuronConstants(NamedTuple):
    """What all neurons of a layer have in common."""

    tau: float
    threshold: float
    slope: float
    detach_membrane: bool
    reset: str = "hard"
    surrogate: str = "sigmoid"
    learn_tau: bool = False

    @property
    def has_kernels(self) -> bool:
        """Whether this is the neuron that ``kernels`` computes."""
        plain = self.reset == "hard" and self.surrogate == "sigmoid" and not self.learn_tau
        return plain and self.detach_membrane

    def check(self) -> None:
        """Refuse a neuron that there is not.

        Raises:
            ValueError: tau < 1, or an unknown reset.
        """
        if self.tau < 1.0:
            raise ValueError(f"tau must be at least 1 step, not {self.tau}.")
        if self.reset not in RESETS:
            raise ValueError(f"There is no reset '{self.reset}'; there are {', '.join(RESETS)}.")


def lif(
    current: Tensor,
    *,
    steps: int | None = None,
    tau: float = 2.0,
    threshold: float = 1.0,
    detach_membrane: bool = True,
    reset: str = "hard",
    surrogate: str = "sigmoid",
    slope: float | None = None,
    rate: Tensor | None = None,
) -> Tensor:
    """Spikes of leaky integrate-and-fire neurons, starting from rest.

    Args:
        current: input current ``[T, ...]``; or ``[...]``, the same at every step, with ``steps``.
        steps: T of a constant current; None where ``current`` has its own T axis.
        tau: membrane time constant, in steps.
        threshold: potential at which a neuron fires.
        detach_membrane: cut the gradient through time, as the published code does; False is full
            back-propagation through time.
        reset: ``hard`` to rest, or ``soft``, by one threshold.
        surrogate: whose derivative replaces that of the step function (``surrogate.SURROGATES``).
        slope: steepness of the surrogate, or width of the rectangular one; None is its paper's.
        rate: ``1 / tau`` as a scalar tensor that gets a gradient; ``tau`` is then not read.

    Returns:
        spikes ``[T, ...]``, 0 or 1, dtype of ``current``. Saved for backward: the current; other
        neurons than the published one save what :func:`plain_neuron.plain_lif` says.

    Raises:
        ValueError: T is 0, tau < 1, a slope that is not positive, an unknown reset or surrogate.
    """
    if steps == 0 or (steps is None and current.shape[0] == 0):
        raise ValueError("A neuron needs at least one time step.")
    slope = slope_of(surrogate, slope)
    learn_tau = rate is not None
    neuron = NeuronConstants(tau, threshold, slope, detach_membrane, reset, surrogate, learn_tau)
    neuron.check()
    if not neuron.has_kernels:
        return plain_lif(
            current, steps=steps, neuron=neuron, rate=1.0 / tau if rate is None else rate
        )
    constant = steps is not None
    count = steps if steps is not None else current.shape[0]
    frame = current.shape if constant else current.shape[1:]
    planes = current.reshape(*(() if constant else (count,)), 1, _planes(frame), -1)
    spikes: Tensor = operations.fire(
        planes, None, None, count, constant, False, tau, threshold, slope
    )
    return spikes.view(count, *frame)


def _planes(frame: torch.Size) -> int:
    """Into how many equal parts a step is cut, one for a thread at a time: by its first axes.

    Enough for all threads, and not more than that, since each costs a little.
    """
    planes = 1
    for size in frame[:-1]:
        planes *= size if planes < ENOUGH_PLANES else 1
    return planes


class LIF(nn.Module):
    """:func:`lif` as a layer without state between calls.

    Its only weight is there with ``learn_tau``: ``w``, common to its neurons, with
    ``1 / tau = sigmoid(w)``, so that tau stays above 1 (PLIF, arXiv 2007.05785). It starts at
    ``tau``.

    Raises:
        ValueError: as :func:`lif`, or tau is learned and starts at 1, where w is infinite.
    """

    def __init__(
        self,
        *,
        tau: float = 2.0,
        threshold: float = 1.0,
        detach_membrane: bool = True,
        reset: str = "hard",
        surrogate: str = "sigmoid",
        slope: float | None = None,
        learn_tau: bool = False,
    ) -> None:
        super().__init__()
        self.tau = tau
        self.threshold = threshold
        self.detach_membrane = detach_membrane
        self.reset = reset
        self.surrogate = surrogate
        self.slope = slope_of(surrogate, slope)
        self.learn_tau = learn_tau
        self.constants.check()
        if learn_tau:
            if tau == 1.0:
                raise ValueError("A learned time constant must start above 1 step.")
            self.w = nn.Parameter(torch.tensor(-math.log(tau - 1.0)))

    def forward(
        self, current: Tensor, steps: int | None = None, norm: BatchNorm | None = None
    ) -> Tensor:
        """``[T, ...]`` to spikes ``[T, ...]``; or with ``steps``, ``[...]`` to ``[steps, ...]``.

        With a batch norm before the neurons, the current is ``[T, B, C, ...]`` or ``[B, C, ...]``,
        and both are one operation where there are kernels for it: not for neurons but the published
        one, for gradients through a norm that is not in training, or for statistics that are common
        to several processes. The result is the same.

        Saved for backward: the current, and vectors for each channel; otherwise what batch norm and
        :func:`lif` save by themselves.

        Raises:
            ValueError: as :func:`lif`.
        """
        if norm is not None and self._fuses(norm):
            return self._at_once(current, steps, norm, pooled=False)
        return self._fire(current if norm is None else norm.of_frames(current, steps), steps)

    def pooled(
        self, current: Tensor, steps: int | None = None, norm: BatchNorm | None = None
    ) -> Tensor:
        """The same with 3x3 max pooling of stride 2 behind the spikes, on ``[T, B, C, H, W]``.

        Pooling joins the operation, so that the spikes before it never exist all at once, unless
        somebody watches them.
        """
        watched = bool(self._forward_hooks or self._forward_pre_hooks)
        if not watched and self._fuses(norm):
            return self._at_once(current, steps, norm, pooled=True)
        spikes = self(current, steps, norm)
        pooled = functional.max_pool2d(spikes.flatten(0, 1), 3, 2, 1)
        return pooled.view(*spikes.shape[:2], *pooled.shape[1:])

    def _fuses(self, norm: BatchNorm | None) -> bool:
        return self.constants.has_kernels and (norm is None or norm.fuses)

    def _at_once(
        self, current: Tensor, steps: int | None, norm: BatchNorm | None, *, pooled: bool
    ) -> Tensor:
        count = current.shape[0] if steps is None else steps
        rest = (count, steps is not None, pooled, self.tau, self.threshold, self.slope)
        spikes: Tensor
        if norm is None or not norm.training:
            known = (None, None) if norm is None else norm.scale_and_shift()
            spikes = operations.fire(current, *known, *rest)
            return spikes
        spikes, statistics = operations.norm_fire(current, norm.weight, norm.bias, norm.eps, *rest)
        norm.follow(*statistics, count=current.numel() * (steps or 1))
        return spikes

    def _fire(self, current: Tensor, steps: int | None) -> Tensor:
        return lif(
            current,
            steps=steps,
            tau=self.tau,
            threshold=self.threshold,
            detach_membrane=self.detach_membrane,
            reset=self.reset,
            surrogate=self.surrogate,
            slope=self.slope,
            rate=torch.sigmoid(self.w) if self.learn_tau else None,
        )

    @property
    def constants(self) -> NeuronConstants:
        """What all neurons of this layer have in common."""
        return NeuronConstants(
            tau=self.tau,
            threshold=self.threshold,
            slope=self.slope,
            detach_membrane=self.detach_membrane,
            reset=self.reset,
            surrogate=self.surrogate,
            learn_tau=self.learn_tau,
        )

    def extra_repr(self) -> str:
        """Say what ``print(model)`` shows."""
        return ", ".join(f"{name}={value}" for name, value in self.constants._asdict().items())


class SpikeRate(float):
    """Spikes per neuron and step of one layer: a float that remembers what it was divided from."""

    spikes: int
    size: int

    def __new__(cls, spikes: int, size: int) -> SpikeRate:
        """Divide."""
        rate = super().__new__(cls, spikes / size)
        rate.spikes, rate.size = spikes, size
        return rate


class SpikeCounter:
    """Counts what every :class:`LIF` of ``model`` fires, until it is closed.

    Costs one count per layer and call; where pooling stands behind a layer, it runs by itself.

    Args:
        model: the network.
        inside: only layers whose names begin with one of these.

    Attributes:
        counts: spikes so far by module name, in the order of first firing, as scalars on the
            device: to ask for the numbers makes it wait. A layer that was never called is absent.
        sizes: neurons times steps times clips so far, by module name.
    """

    def __init__(self, model: nn.Module, inside: tuple[str, ...] = ("",)) -> None:
        self.counts: dict[str, Tensor] = {}
        self.sizes: dict[str, int] = {}
        layers = [(n, m) for n, m in model.named_modules() if isinstance(m, LIF)]
        self._handles = [self._watch(n, m) for n, m in layers if n.startswith(inside)]

    def _watch(self, name: str, module: LIF) -> torch.utils.hooks.RemovableHandle:
        def count(_module: nn.Module, _inputs: Any, spikes: Tensor) -> None:
            if replaying():
                return
            fired = spikes.detach().count_nonzero()
            self.counts[name] = self.counts[name] + fired if name in self.counts else fired
            self.sizes[name] = self.sizes.get(name, 0) + spikes.numel()

        return module.register_forward_hook(count)

    def close(self) -> None:
        """Stops counting and leaves no trace in the model."""
        for handle in self._handles:
            handle.remove()

    def rates(self) -> dict[str, SpikeRate]:
        """Spikes per neuron and step so far, by module name."""
        return {name: SpikeRate(int(n), self.sizes[name]) for name, n in self.counts.items()}


@contextmanager
def spike_rates(
    model: nn.Module, inside: tuple[str, ...] = ("",)
) -> Iterator[dict[str, SpikeRate]]:
    """Measure how often every :class:`LIF` of ``model`` fires while the context is open.

    The dictionary is empty inside the context and filled when it closes: module name to the rate
    over all forward passes made meanwhile, as :class:`SpikeCounter` counts them.

    Args:
        model: the network.
        inside: only layers whose names begin with one of these.
    """
    rates: dict[str, SpikeRate] = {}
    counter = SpikeCounter(model, inside)
    try:
        yield rates
    finally:
        counter.close()
        rates.update(counter.rates())
