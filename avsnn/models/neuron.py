"""Leaky integrate-and-fire neurons, as a function and as a layer.

The neuron (arXiv 2502.12488, section 3.1) in discrete time, with ``v[-1] = 0`` for every input::

    h[t] = v[t-1] + (x[t] - v[t-1]) / tau      membrane potential before firing
    s[t] = 1 where h[t] >= threshold           equality fires
    v[t] = h[t] * (1 - s[t])                   hard reset

The backward pass uses ``ds/dh = slope * sig(slope * u) * (1 - sig(slope * u))`` with
``u = h - threshold``; no gradient passes through the reset.

The published neuron cuts the gradient through time. The package ``kernels`` computes this neuron,
together with the batch norm before it and the pooling behind it, as one operator. All other neurons
(another reset or surrogate, a learned time constant, a gradient through time) run on
``autograd_neuron.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from avsnn.models.activation_checkpointing import is_recomputing
from avsnn.models.autograd_neuron import autograd_lif
from avsnn.models.kernels import attention_operators, operators
from avsnn.models.kernels.layer_spec import AttentionSpec
from avsnn.models.kernels.reference import count_spikes
from avsnn.models.neuron_constants import NeuronConstants
from avsnn.models.surrogate import slope_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from avsnn.models.batch_norm import BatchNorm

    NeuronFactory = Callable[[], "LIF"]


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
    """Compute the spikes of leaky integrate-and-fire neurons that start from rest.

    Args:
        current: input current ``[T, ...]``; or ``[...]``, the same at every step, with ``steps``.
        steps: T of a constant current; None if ``current`` has its own T axis.
        tau: membrane time constant, in steps.
        threshold: membrane potential at which a neuron fires.
        detach_membrane: cut the gradient through time, as the published code does; False is full
            back-propagation through time.
        reset: ``hard`` sets the potential to rest, ``soft`` lowers it by one threshold.
        surrogate: name of the surrogate gradient (``surrogate.SURROGATES``).
        slope: slope of the surrogate, or width of the rectangular surrogate; None is the value of
            the surrogate's paper.
        rate: ``1 / tau`` as a scalar tensor that gets a gradient; ``tau`` is then not read.

    Returns:
        spikes ``[T, ...]``, 0 or 1, with the dtype of ``current``. Saved for backward: the current.
        Neurons other than the published neuron save what ``autograd_lif`` documents.

    Raises:
        ValueError: T is 0, the current is empty, tau < 1, the slope is not positive, or the reset
            or the surrogate is unknown.
    """
    slope = slope_of(surrogate, slope)
    learn_tau = rate is not None
    neuron = NeuronConstants(tau, threshold, slope, detach_membrane, reset, surrogate, learn_tau)
    neuron.check()
    return _fire(current, steps, neuron, rate)[0]


def _fire(
    current: Tensor, steps: int | None, neuron: NeuronConstants, rate: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the spikes of ``lif``, and the numbers that ``operators.fire`` counts.

    The second result is None for neurons without kernels, which count nothing.
    """
    _require_neurons(current, steps)
    if not neuron.has_kernels:
        constant_rate = 1.0 / neuron.tau
        return (
            autograd_lif(
                current, steps=steps, neuron=neuron, rate=constant_rate if rate is None else rate
            ),
            None,
        )
    count = steps if steps is not None else current.shape[0]
    spikes, fired = operators.fire(
        current,
        None,
        None,
        count,
        steps is not None,
        False,
        neuron.tau,
        neuron.threshold,
        neuron.slope,
    )
    return spikes, fired


def _require_neurons(current: Tensor, steps: int | None) -> None:
    """Refuse an empty current, which the kernels cannot read."""
    if steps == 0 or (steps is None and current.shape[0] == 0):
        raise ValueError("A neuron needs at least one time step.")
    if current.numel() == 0:
        raise ValueError(f"The batch is empty: the current has the shape {tuple(current.shape)}.")


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons (``lif``) as a layer that keeps no state between calls.

    The layer has one weight, ``w``, if ``learn_tau`` is true. All neurons of the layer share ``w``,
    and ``1 / tau = sigmoid(w)``, so tau stays above 1 (PLIF, arXiv 2007.05785). ``w`` starts at the
    value that gives ``tau``.

    Attributes:
        tally: ``[2]`` int64, to which every call adds its number of spikes, and the number of
            neurons times time steps; None counts nothing (``spike_counter.SpikeCounter``).

    Raises:
        ValueError: as ``lif``; or tau is learned and starts at 1, where ``w`` would be infinite.
    """

    tally: Tensor | None = None

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
        """Compute spikes, with a batch norm before the neurons if ``norm`` is given.

        Batch norm and neurons run as one operator where kernels compute both. They run one after
        the other for every neuron but the published neuron, for gradients through a norm in
        evaluation mode, and for statistics over several processes. The result is the same.

        Args:
            current: ``[T, ...]``; or ``[...]``, the same at every step, with ``steps``. With
                ``norm``, ``[T, B, C, ...]`` or ``[B, C, ...]``.
            steps: T of a constant current; None if ``current`` has its own T axis.
            norm: batch norm of the current.

        Returns:
            spikes ``[T, ...]``. Saved for backward: the current and vectors ``[C]``; where two
            operations run, what batch norm and ``lif`` save.

        Raises:
            ValueError: as ``lif``.
        """
        if norm is not None and self._can_fuse(norm):
            return self._fire_fused(current, steps, norm, pooled=False)
        if norm is not None:
            current = norm.normalise_steps(current, steps)
        rate = torch.sigmoid(self.w) if self.learn_tau else None
        spikes, count = _fire(current, steps, self.constants, rate)
        self._add_to_tally(spikes, count)
        return spikes

    def pooled(
        self, current: Tensor, steps: int | None = None, norm: BatchNorm | None = None
    ) -> Tensor:
        """Compute spikes as ``forward`` does, then 3x3 max pooling with stride 2 and padding 1.

        The current is ``[T, B, C, H, W]`` or ``[B, C, H, W]``. Pooling is part of the operator, so
        the spikes before pooling are never in memory all at once. If a hook watches this layer, the
        hook has to see these spikes, and pooling runs separately.
        """
        watched = bool(self._forward_hooks or self._forward_pre_hooks)
        if not watched and self._can_fuse(norm):
            return self._fire_fused(current, steps, norm, pooled=True)
        spikes = self(current, steps, norm)
        pooled = functional.max_pool2d(spikes.flatten(0, 1), 3, 2, 1)
        return pooled.view(*spikes.shape[:2], *pooled.shape[1:])

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, heads: int, layout: str
    ) -> Tensor:
        """Compute spikes whose current is the attention of spikes, as one operator.

        Args:
            query: spikes ``[T, B, C, N]``.
            key: as ``query``.
            value: as ``query``.
            heads: number of heads.
            layout: what attention is over (``AttentionSpec``).

        Returns:
            spikes ``[T, B, C, N]``. Saved for backward: query, key and value, one byte each.
        """
        spikes: Tensor
        spec = self.attention_spec(heads, layout)
        spikes, count, _ = attention_operators.attend_fire(query, key, value, *spec)
        self._add_to_tally(spikes, count)
        return spikes

    def attention_spec(self, heads: int, layout: str) -> AttentionSpec:
        """Return the description of attention on these neurons that the kernels take."""
        return AttentionSpec(heads, layout, self.tau, self.threshold, self.slope)

    def _can_fuse(self, norm: BatchNorm | None) -> bool:
        return self.constants.has_kernels and (norm is None or norm.can_fuse)

    def _fire_fused(
        self, current: Tensor, steps: int | None, norm: BatchNorm | None, *, pooled: bool
    ) -> Tensor:
        _require_neurons(current, steps)
        count = current.shape[0] if steps is None else steps
        spec = (count, steps is not None, pooled, self.tau, self.threshold, self.slope)
        spikes: Tensor
        if norm is None or not norm.training:
            scale, shift = (None, None) if norm is None else norm.scale_and_shift()
            spikes, fired = operators.fire(current, scale, shift, *spec)
        else:
            spikes, fired, statistics = operators.norm_fire(
                current, norm.weight, norm.bias, norm.eps, *spec
            )
            norm.update_running_statistics(*statistics[:2], count=current.numel() * (steps or 1))
        self._add_to_tally(spikes, fired)
        return spikes

    def _add_to_tally(self, spikes: Tensor, count: Tensor | None) -> None:
        if self.tally is not None and not is_recomputing():
            self.tally.add_(count_spikes(spikes.detach()) if count is None else count)

    @property
    def constants(self) -> NeuronConstants:
        """The constants that all neurons of this layer share."""
        return NeuronConstants(
            tau=self.tau,
            threshold=self.threshold,
            slope=self.slope,
            detach_membrane=self.detach_membrane,
            reset=self.reset,
            surrogate=self.surrogate,
            learn_tau=self.learn_tau,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy of the layer gets: everything but the tally of an open counter."""
        return {name: value for name, value in self.__dict__.items() if name != "tally"}

    def extra_repr(self) -> str:
        """Return the constants as ``print(model)`` shows them."""
        return ", ".join(f"{name}={value}" for name, value in self.constants._asdict().items())
