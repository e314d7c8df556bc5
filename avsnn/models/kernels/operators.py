"""The kernels as torch operators, ``torch.ops.avsnn.*``.

A compiler does not look inside these operators, autocast passes through them, and autograd can
differentiate them once. For backward the operators save the current; backward computes the
potentials again.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from avsnn.models.kernels import cpu
from avsnn.models.kernels.dispatch import kernels_for
from avsnn.models.kernels.layer_spec import LayerSpec

_LIBRARY = torch.library.Library("avsnn", "DEF")  # type: ignore[no-untyped-call]


def _operator(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a function as the torch operator ``avsnn::<name of the function>``.

    ``torch.library.custom_op`` does the same, but imports torch's compiler when an operator is
    first called. The import costs 1.7 s and 145 MB, and an evaluation does not need the compiler.
    """
    name = function.__name__
    _LIBRARY.define(name + torch.library.infer_schema(function, mutates_args=()))  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, function, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    operator: Callable[..., Any] = getattr(torch.ops.avsnn, name).default
    return operator


@_operator
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


@_operator
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
    x = kernels.as_input(current)
    grad = kernels.as_input(grad.to(current.dtype))
    out: Tensor = kernels.fire_backward(grad, x, None, None, None, layer)[0]
    return out.to(current.dtype)


@_operator
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
        spikes ``[T, B, C, ...]``; the numbers ``[2]`` that ``fire`` returns; and mean and biased
        variance of each channel, ``[2, C]``. No gradient flows through the last two results.
    """
    layer = LayerSpec(steps, constant, pooled, tau, threshold, slope)
    kernels = kernels_for(current)
    x = kernels.as_input(current)
    statistics = kernels.moments(x if constant else x.flatten(0, 1))
    scale = weight * torch.rsqrt(statistics[1] + eps)
    spikes, count = _fire(x, scale, bias - statistics[0] * scale, layer)
    return spikes.to(current.dtype), count, statistics


@_operator
def norm_fire_backward(
    grad: Tensor,
    current: Tensor,
    weight: Tensor,
    bias: Tensor,
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
    x = kernels.as_input(current)
    grad = kernels.as_input(grad.to(current.dtype))
    mean, variance = statistics.unbind()
    inverse = torch.rsqrt(variance + eps)
    scale = weight * inverse
    out, sums = kernels.fire_backward(grad, x, scale, bias - mean * scale, mean, layer)
    count = x.numel() // len(mean)
    total, product = sums.t().contiguous().unbind()
    # With d, the gradient of the normalised current, the gradient of batch norm is
    # scale * (d - mean(d) - x_hat * mean(d * x_hat)).
    slant = product / count * inverse * inverse
    flat, frames = (out, x) if constant else (out.flatten(0, 1), x.flatten(0, 1))
    kernels.norm_backward(
        flat, frames, scale, -scale * slant, scale * (mean * slant - total / count)
    )
    return out.to(current.dtype), product * inverse, total


@_operator
def spike_conv(
    spikes: Tensor, packed: Tensor, weight: Tensor, bias: Tensor | None, fired: int
) -> Tensor:
    """Convolve spikes: where spikes are few, add the weights of each spike.

    Args:
        spikes: ``[F, C, H, W]`` for 3x3 weights, ``[F, C, N]`` for 1x1; for 1x1 the values may be
            sums of up to three spikes.
        packed: ``spikes`` with one byte per value; only ``packed`` is saved for backward.
        weight: ``[C', C, 3, 3]`` or ``[C', C, 1]``.
        bias: ``[C']``, or None.
        fired: number of values that are not zero.

    Returns:
        ``[F, C', H, W]`` or ``[F, C', N]``.
    """
    out = cpu.spike_conv(packed, weight, bias, fired)
    if out is not None:
        return out
    convolve = functional.conv2d if weight.dim() == 4 else functional.conv1d
    return convolve(spikes, weight, bias, padding=weight.shape[-1] // 2)


@_operator
def spike_conv_backward(
    grad: Tensor, packed: Tensor, weight: Tensor, biased: bool, fired: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of spikes, weights and bias; the last is empty if not ``biased``."""
    grad = grad.contiguous()
    grad_weight = cpu.spike_conv_backward(grad, packed, weight, fired)
    if grad_weight is None:
        axes = weight.dim() - 2
        _, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad,
            packed.to(weight.dtype),
            weight,
            None,
            [1] * axes,
            [weight.shape[-1] // 2] * axes,
            [1] * axes,
            False,
            [0] * axes,
            1,
            [False, True, False],
        )
    if weight.dim() == 4:
        grad_spikes = functional.conv_transpose2d(grad, weight, padding=1)
    else:
        grad_spikes = functional.conv1d(grad, weight.transpose(0, 1))
    others = [axis for axis in range(grad.dim()) if axis != 1]
    grad_bias = grad.sum(others) if biased else grad.new_empty(0)
    return grad_spikes.contiguous(), grad_weight.contiguous(), grad_bias


def _fire(
    current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: LayerSpec
) -> tuple[Tensor, Tensor]:
    kernels = kernels_for(current)
    spikes, count = kernels.fire(kernels.as_input(current), scale, shift, layer)
    return spikes.to(current.dtype), count


def _fake_fire(
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    steps: int,
    constant: bool,
    pooled: bool,
    *rest: float,
) -> tuple[Tensor, Tensor]:
    spikes = LayerSpec(steps, constant, pooled, *rest).spike_shape(current)
    return current.new_empty(spikes), current.new_empty(2, dtype=torch.int64)


def _fake_fire_backward(grad: Tensor, current: Tensor, *_rest: float) -> Tensor:
    return torch.empty_like(current, memory_format=torch.contiguous_format)


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
    spikes = LayerSpec(steps, constant, pooled, *rest).spike_shape(current)
    count = current.new_empty(2, dtype=torch.int64)
    return current.new_empty(spikes), count, weight.new_empty((2, len(weight)))


def _fake_norm_fire_backward(
    grad: Tensor, current: Tensor, weight: Tensor, bias: Tensor, *_rest: float
) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty_like(current, memory_format=torch.contiguous_format)
    return out, torch.empty_like(weight), torch.empty_like(weight)


def _fake_spike_conv(spikes: Tensor, packed: Tensor, weight: Tensor, *_rest: Any) -> Tensor:
    return spikes.new_empty((len(spikes), len(weight), *spikes.shape[2:]))


def _fake_spike_conv_backward(
    grad: Tensor, packed: Tensor, weight: Tensor, biased: bool, fired: int
) -> tuple[Tensor, Tensor, Tensor]:
    grad_spikes = grad.new_empty(packed.shape)
    return grad_spikes, torch.empty_like(weight), weight.new_empty(len(weight) if biased else 0)


def _refuse_second_derivative() -> None:
    """Refuse ``create_graph=True``: the operators have no derivative of their derivative.

    Without this check, torch would leave the second derivative out in silence.

    Raises:
        RuntimeError: autograd records this backward pass, to differentiate the pass again.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "Spikes can be differentiated once: leave out create_graph=True, or use neurons that "
            "autograd differentiates (avsnn.models.autograd_neuron.autograd_lif)."
        )


def _save_for_spike_conv(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, packed, weight, bias, ctx.fired = inputs
    ctx.biased = bias is not None
    ctx.save_for_backward(packed, weight)


def _backward_of_spike_conv(ctx, grad):  # type: ignore[no-untyped-def]
    _refuse_second_derivative()
    grad_spikes, grad_weight, grad_bias = spike_conv_backward(
        grad, *ctx.saved_tensors, ctx.biased, ctx.fired
    )
    return grad_spikes, None, grad_weight, grad_bias if ctx.biased else None, None


def _save_for_fire(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    current, scale, _, *rest = inputs
    if scale is not None and ctx.needs_input_grad[0]:
        raise RuntimeError("Neurons with a scale have no gradient; use them in evaluation only.")
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(current)
    ctx.rest = rest


def _backward_of_fire(ctx, grad, _count):  # type: ignore[no-untyped-def]
    _refuse_second_derivative()
    (current,) = ctx.saved_tensors
    return fire_backward(grad, current, *ctx.rest), *(None,) * 8


def _save_for_norm_fire(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    current, weight, bias, *rest = inputs
    _, count, statistics = output
    ctx.mark_non_differentiable(count, statistics)
    ctx.save_for_backward(current, weight, bias, statistics)
    ctx.rest = rest


def _backward_of_norm_fire(ctx, grad, _count, _statistics):  # type: ignore[no-untyped-def]
    _refuse_second_derivative()
    return *norm_fire_backward(grad, *ctx.saved_tensors, *ctx.rest), *(None,) * 7


for _name, _fake in (
    ("fire", _fake_fire),
    ("fire_backward", _fake_fire_backward),
    ("norm_fire", _fake_norm_fire),
    ("norm_fire_backward", _fake_norm_fire_backward),
    ("spike_conv", _fake_spike_conv),
    ("spike_conv_backward", _fake_spike_conv_backward),
):
    torch.library.register_fake(f"avsnn::{_name}", _fake)

for _name, _backward, _save in (
    ("fire", _backward_of_fire, _save_for_fire),
    ("norm_fire", _backward_of_norm_fire, _save_for_norm_fire),
    ("spike_conv", _backward_of_spike_conv, _save_for_spike_conv),
):
    torch.library.register_autograd(f"avsnn::{_name}", _backward, setup_context=_save)
