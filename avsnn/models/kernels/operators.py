"""The kernels as torch operators, ``torch.ops.avsnn.*``.

A compiler does not look inside these operators, autocast passes through them, and autograd can
differentiate them once. For backward the operators save the current; backward computes the
potentials again.
"""

import torch
from torch import Tensor

from avsnn.models.kernels.dispatch import kernels_for
from avsnn.models.kernels.layer_spec import SPIKE_CHANNEL, LayerSpec
from avsnn.models.kernels.memory_layout import empty, memory_order, spike_order
from avsnn.models.kernels.registration import (
    operator,
    refuse_second_derivative,
    without_gradient,
)


@operator()
def fire(
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    steps: int,
    constant: bool,
    pooled: bool,
    tau: float,
    threshold: float,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """Return the spikes of ``current * scale + shift``; differentiable only if ``scale`` is None.

    Args:
        current: ``[T, B, C, ...]``, or ``[B, C, ...]`` if ``constant``; without ``scale`` and
            pooling, any ``[T, ...]`` or ``[...]``.
        scale: ``[C]``, or None to take ``current`` as it is.
        shift: ``[C]`` with ``scale``, otherwise None.
        steps: T. This argument and the following arguments are the fields of a ``LayerSpec``,
            because a torch operator does not take a ``LayerSpec``.
        constant: whether the same current is the input of every step.
        pooled: whether 3x3 max pooling with stride 2 and padding 1 follows the spikes.
        tau: membrane time constant, in steps.
        threshold: membrane potential at which a neuron fires.
        slope: slope of the surrogate.

    Returns:
        spikes ``[T, B, C, ...]``; and ``[2]`` int64, through which no gradient flows: the number of
        spikes before pooling, and the number of neurons times time steps.
    """
    layer = LayerSpec(steps, constant, pooled, tau, threshold, slope)
    return _fire(current, scale, shift, layer)


@operator()
def fire_backward(
    grad: Tensor,
    current: Tensor,
    steps: int,
    constant: bool,
    pooled: bool,
    tau: float,
    threshold: float,
    slope: float,
) -> Tensor:
    """Return the gradient of the current from the gradient of its spikes.

    The arguments are those of ``fire``, with ``grad``, the gradient of the spikes.
    """
    layer = LayerSpec(steps, constant, pooled, tau, threshold, slope)
    kernels = kernels_for(current)
    channel = layer.channel if pooled else None
    x = kernels.as_input(current, channel)
    grad = kernels.as_input(grad.to(current.dtype), None if channel is None else SPIKE_CHANNEL)
    out: Tensor = kernels.current_gradient(grad, x, layer)
    return out.to(current.dtype)


@operator()
def norm_fire(
    current: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    steps: int,
    constant: bool,
    pooled: bool,
    tau: float,
    threshold: float,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise a current with the statistics of this batch, and return the spikes.

    Args:
        current: as for ``fire``.
        weight: weight of the batch norm, ``[C]``.
        bias: bias of the batch norm, ``[C]``.
        eps: number that batch norm adds to the variance.
        steps: T. This argument and the following arguments are as for ``fire``.
        constant: as for ``fire``.
        pooled: as for ``fire``.
        tau: as for ``fire``.
        threshold: as for ``fire``.
        slope: as for ``fire``.

    Returns:
        spikes ``[T, B, C, ...]``; the numbers ``[2]`` that ``fire`` returns; and mean, biased
        variance, scale and shift of each channel, ``[4, C]``: the normalised current is ``current *
        scale + shift``. No gradient flows through the last two results.
    """
    layer = LayerSpec(steps, constant, pooled, tau, threshold, slope)
    kernels = kernels_for(current)
    x = kernels.as_input(current, layer.channel)
    statistics = kernels.norm(x, weight, bias, eps, layer)
    spikes, count = kernels.fire(x, *statistics[2:], layer)
    return spikes.to(current.dtype), count, statistics


@operator()
def norm_fire_backward(
    grad: Tensor,
    current: Tensor,
    weight: Tensor,
    statistics: Tensor,
    eps: float,
    steps: int,
    constant: bool,
    pooled: bool,
    tau: float,
    threshold: float,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of current, weight and bias from the gradient of the spikes.

    The arguments are those of ``norm_fire``, with ``grad``, the gradient of the spikes, and
    ``statistics``, the third result of ``norm_fire``.
    """
    layer = LayerSpec(steps, constant, pooled, tau, threshold, slope)
    kernels = kernels_for(current)
    x = kernels.as_input(current, layer.channel)
    grad = kernels.as_input(grad.to(current.dtype), SPIKE_CHANNEL)
    out, *others = kernels.norm_fire_backward(grad, x, statistics, eps, layer)
    grad_weight, grad_bias = (other.to(weight.dtype) for other in others)
    return out.to(current.dtype), grad_weight, grad_bias


@operator(changes=("running_mean", "running_variance", "batches"))
def move_statistics(
    running_mean: Tensor,
    running_variance: Tensor,
    batches: Tensor,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    unbiased: float,
) -> None:
    """Move the running statistics of a batch norm towards the statistics of a batch, in place.

    The arguments are those of ``reference.move_statistics``.
    """
    # Write through `data`: an ordinary write raises the version counter, and autograd then refuses
    # a backward pass that saved a running statistic, even if that backward pass does not read it.
    kernels_for(mean).move_statistics(
        running_mean.data, running_variance.data, batches, mean, variance, momentum, unbiased
    )


def _fire(
    current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: LayerSpec
) -> tuple[Tensor, Tensor]:
    kernels = kernels_for(current)
    x = kernels.as_input(current, _channel(scale, layer))
    spikes, count = kernels.fire(x, scale, shift, layer)
    return spikes.to(current.dtype), count


def _channel(scale: Tensor | None, layer: LayerSpec) -> int | None:
    """Return the axis of the channels of a current, or None if the current need not have any."""
    return layer.channel if layer.pooled or scale is not None else None


def _order(current: Tensor, channel: int | None) -> list[int]:
    """Return the order in which the axes of a current, read by its kernels, lie in memory."""
    if kernels_for(current).CHANNELS_INNERMOST:
        return memory_order(current, channel)
    return list(range(current.dim()))


def _empty_spikes(current: Tensor, channel: int | None, layer: LayerSpec) -> tuple[Tensor, Tensor]:
    """Return memory for what ``fire`` returns."""
    order = spike_order(_order(current, channel), constant=layer.constant)
    spikes = empty(current, layer.spike_shape(current), order)
    return spikes, current.new_empty(2, dtype=torch.int64)


def _fake_fire(
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    steps: int,
    constant: bool,
    pooled: bool,
    *rest: float,
) -> tuple[Tensor, Tensor]:
    layer = LayerSpec(steps, constant, pooled, *rest)
    return _empty_spikes(current, _channel(scale, layer), layer)


def _fake_fire_backward(
    grad: Tensor, current: Tensor, steps: int, constant: bool, pooled: bool, *rest: float
) -> Tensor:
    layer = LayerSpec(steps, constant, pooled, *rest)
    return empty(current, current.shape, _order(current, _channel(None, layer)))


def _fake_norm_fire(
    current: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    steps: int,
    constant: bool,
    pooled: bool,
    *rest: float,
) -> tuple[Tensor, Tensor, Tensor]:
    layer = LayerSpec(steps, constant, pooled, *rest)
    kind = torch.promote_types(current.dtype, torch.float32)
    statistics = current.new_empty((4, len(weight)), dtype=kind)
    return *_empty_spikes(current, layer.channel, layer), statistics


def _fake_norm_fire_backward(
    grad: Tensor,
    current: Tensor,
    weight: Tensor,
    statistics: Tensor,
    eps: float,
    steps: int,
    constant: bool,
    *_rest: float,
) -> tuple[Tensor, Tensor, Tensor]:
    out = empty(current, current.shape, _order(current, 1 if constant else 2))
    return out, torch.empty_like(weight), torch.empty_like(weight)


def _fake_move_statistics(running_mean: Tensor, *_rest: Tensor | float) -> None:
    pass


def _save_for_fire(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    current, scale, _, *rest = inputs
    if scale is not None and ctx.needs_input_grad[0]:
        raise RuntimeError("Neurons with a scale have no gradient; use them in evaluation only.")
    without_gradient(ctx, output[1])
    ctx.save_for_backward(current)
    ctx.rest = rest


def _backward_of_fire(ctx, grad, _count):  # type: ignore[no-untyped-def]
    refuse_second_derivative()
    if grad is None:
        return (None,) * 9
    (current,) = ctx.saved_tensors
    return fire_backward(grad, current, *ctx.rest), *(None,) * 8


def _save_for_norm_fire(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    current, weight, _, *rest = inputs
    _, count, statistics = output
    without_gradient(ctx, count, statistics)
    ctx.save_for_backward(current, weight, statistics)
    ctx.rest = rest


def _backward_of_norm_fire(ctx, grad, _count, _statistics):  # type: ignore[no-untyped-def]
    refuse_second_derivative()
    if grad is None:
        return (None,) * 10
    return *norm_fire_backward(grad, *ctx.saved_tensors, *ctx.rest), *(None,) * 7


for _name, _fake in (
    ("fire", _fake_fire),
    ("fire_backward", _fake_fire_backward),
    ("norm_fire", _fake_norm_fire),
    ("norm_fire_backward", _fake_norm_fire_backward),
    ("move_statistics", _fake_move_statistics),
):
    torch.library.register_fake(f"avsnn::{_name}", _fake)

for _name, _backward, _save in (
    ("fire", _backward_of_fire, _save_for_fire),
    ("norm_fire", _backward_of_norm_fire, _save_for_norm_fire),
):
    torch.library.register_autograd(f"avsnn::{_name}", _backward, setup_context=_save)
