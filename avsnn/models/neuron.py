"""Leaky integrate-and-fire neurons, and a way to watch them fire.

The neuron (arXiv 2502.12488, section 3.1) in discrete time, ``v[-1] = 0`` for every input::

    h[t] = v[t-1] + (x[t] - v[t-1]) / tau      potential before firing
    s[t] = 1 where h[t] >= threshold           equality fires
    v[t] = h[t] * (1 - s[t])                   hard reset

and in the backward pass ``ds/dh = slope * sig(slope * u) * (1 - sig(slope * u))`` with
``u = h - threshold``; no gradient passes through the reset.

This one, detached from the past or not, has operations of its own here. Other resets and
surrogates, and a time constant that is learned, run on ``plain_neuron.py``.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from avsnn.models.plain_neuron import RESETS, plain_lif
from avsnn.models.surrogate import slope_of

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    def has_operation(self) -> bool:
        """Whether this is the neuron whose spikes and gradients are written out in this file."""
        return self.reset == "hard" and self.surrogate == "sigmoid" and not self.learn_tau

    def check(self) -> None:
        """Refuse a neuron that there is not.

        Raises:
            ValueError: tau < 1, or an unknown reset.
        """
        if self.tau < 1.0:
            raise ValueError(f"tau must be at least 1 step, not {self.tau}.")
        if self.reset not in RESETS:
            raise ValueError(f"There is no reset '{self.reset}'; there are {', '.join(RESETS)}.")


#: The most elements that torch passes over in one thread.
_GRAIN = 1 << 15


def _slab_size(device: torch.device, everything: int) -> int:
    """Elements of one time step that are worked on together.

    On a CPU all passes over a slab run in its cache. With few cores a slab stays small enough for
    one thread: waking the others for every pass costs more than it gains, above all where cores
    are shared. On other devices launches are what costs, and a slab is everything.
    """
    if device.type != "cpu":
        return max(1, everything)
    threads = torch.get_num_threads()
    return _GRAIN if threads <= 4 else _GRAIN * threads


def slabs(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut contiguous ``[T, ...]`` tensors of equal trailing size into ``[T, M]`` views."""
    flat = [tensor.view(tensor.shape[0], -1) for tensor in tensors]
    size = _slab_size(flat[0].device, flat[0].shape[1])
    return zip(*(torch.split(tensor, size, dim=1) for tensor in flat), strict=True)


def charge(
    current: Tensor, membrane: Tensor | None, neuron: NeuronConstants, out: Tensor
) -> Tensor:
    """Write ``-h[t]`` to ``out`` and return it, from ``x[t]`` and ``-v[t-1]``.

    Potentials are kept negated all through: what stays of them after the reset is then what lies
    above a bound, which is one pass (``torch.threshold``) instead of three.
    """
    if membrane is None:
        return torch.mul(current, -1.0 / neuron.tau, out=out)
    torch.add(current, membrane, out=out)
    return torch.add(membrane, out, alpha=-1.0 / neuron.tau, out=out)


def times_surrogate(grad: Tensor, negated: Tensor, neuron: NeuronConstants, out: Tensor) -> Tensor:
    """``out = grad * ds/dh / tau`` from ``-h``.

    In the order in which the published code multiplies, ``(grad * sig) * (1 - sig)``, which torch's
    own derivative of the sigmoid does not keep. The constants go into the last factor: exactly,
    where ``slope / tau`` is a power of 2.
    """
    sigmoid = torch.rsub(negated, -neuron.slope * neuron.threshold, alpha=neuron.slope).sigmoid_()
    torch.mul(grad, sigmoid, out=out)
    scale = neuron.slope / neuron.tau
    # a tensor without axes, because only with two tensors torch can write over one of them
    torch.sub(torch.tensor(scale), sigmoid, alpha=scale, out=sigmoid)
    return out.mul_(sigmoid)


class _LIF(torch.autograd.Function):
    """A current that changes over time. Saves the negated potentials ``[T, ...]``, nothing else."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, neuron: NeuronConstants) -> Tensor:
        current = current.contiguous()
        learns = ctx.needs_input_grad[0]
        spikes = torch.empty_like(current)
        potentials = torch.empty_like(current if learns else current[:1])
        for x, s, kept in slabs(current, spikes, potentials):
            membrane: Tensor | None = None
            for t in range(x.shape[0]):
                h = charge(x[t], membrane, neuron, kept[t if learns else 0])
                torch.le(h, -neuron.threshold, out=s[t])
                if t + 1 < x.shape[0]:
                    membrane = torch.threshold(h, -neuron.threshold, 0.0)
        if learns:
            ctx.save_for_backward(potentials)
            ctx.neuron = neuron
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (potentials,) = ctx.saved_tensors
        neuron: NeuronConstants = ctx.neuron
        out = torch.empty_like(potentials)
        for g, h, x in slabs(grad.contiguous(), potentials, out):
            for t in reversed(range(h.shape[0])):
                times_surrogate(g[t], h[t], neuron, x[t])
                if not neuron.detach_membrane and t + 1 < h.shape[0]:
                    leaked = x[t + 1] * (1.0 - 1.0 / neuron.tau)
                    x[t].add_(leaked.masked_fill_(h[t] <= -neuron.threshold, 0.0))
        return out, None


class _ConstantLIF(torch.autograd.Function):
    """One current for all steps. Saves that current ``[...]``; backward redoes the potentials."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, steps: int, neuron: NeuronConstants) -> Tensor:
        current = current.contiguous()
        spikes = current.new_empty((steps, *current.shape))
        for x, s in slabs(current.unsqueeze(0), spikes):
            membrane, h = None, torch.empty_like(x[0])
            for t in range(steps):
                h = charge(x[0], membrane, neuron, h)
                torch.le(h, -neuron.threshold, out=s[t])
                membrane = torch.threshold(h, -neuron.threshold, 0.0)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(current)
            ctx.neuron = neuron
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (current,) = ctx.saved_tensors
        neuron: NeuronConstants = ctx.neuron
        total = torch.zeros_like(current)
        for x, g, out in slabs(current.unsqueeze(0), grad.contiguous(), total.unsqueeze(0)):
            membrane, h, part = None, torch.empty_like(x[0]), torch.empty_like(x[0])
            # tau * dh[t]/dx: 1 when the membrane is detached, otherwise the sum of the leak since
            # the last reset, so that one pass forward replaces a pass back in time
            reach = torch.ones_like(x[0]) if not neuron.detach_membrane else None
            for t in range(g.shape[0]):
                h = charge(x[0], membrane, neuron, h)
                times_surrogate(g[t], h, neuron, part)
                membrane = torch.threshold(h, -neuron.threshold, 0.0)
                if reach is not None:
                    part.mul_(reach)
                    reach.masked_fill_(h <= -neuron.threshold, 0.0)
                    reach.mul_(1.0 - 1.0 / neuron.tau).add_(1.0)
                out[0].add_(part)
        return total, None, None


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
        spikes ``[T, ...]``, 0 or 1, dtype of ``current``. Saved for backward: the potentials
        ``[T, ...]``, or for a constant current only the current; other neurons than the published
        one save what :func:`plain_neuron.plain_lif` says.

    Raises:
        ValueError: T is 0, tau < 1, a slope that is not positive, an unknown reset or surrogate.
    """
    if steps == 0 or (steps is None and current.shape[0] == 0):
        raise ValueError("A neuron needs at least one time step.")
    slope = slope_of(surrogate, slope)
    learn_tau = rate is not None
    neuron = NeuronConstants(tau, threshold, slope, detach_membrane, reset, surrogate, learn_tau)
    neuron.check()
    if not neuron.has_operation:
        return plain_lif(
            current, steps=steps, neuron=neuron, rate=1.0 / tau if rate is None else rate
        )
    spikes: Tensor = _fire(current, steps, neuron)
    return spikes


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _fire(current: Tensor, steps: int | None, neuron: NeuronConstants) -> Tensor:
    """One operation to a compiler, which would take minutes to unroll its steps and passes."""
    if steps is None:
        return _LIF.apply(current, neuron)  # type: ignore[no-any-return, no-untyped-call]
    return _ConstantLIF.apply(current, steps, neuron)  # type: ignore[no-any-return, no-untyped-call]


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

    def forward(self, current: Tensor, steps: int | None = None) -> Tensor:
        """``[T, ...]`` to spikes ``[T, ...]``; or with ``steps``, ``[...]`` to ``[steps, ...]``.

        Saved for backward: as :func:`lif`.

        Raises:
            ValueError: as :func:`lif`.
        """
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

    @property
    def watched(self) -> bool:
        """Whether somebody hooked on to this layer and so has to see its spikes."""
        return bool(self._forward_hooks or self._forward_pre_hooks)

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

    Costs one count per layer and call; layers with pooling behind them lose their joint operation
    meanwhile (``spike_pool.py``).

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
