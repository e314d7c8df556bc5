"""The kernels as torch operators.

They are opaque to a compiler, transparent to autocast, and differentiable once. What they save is
the current they were given; potentials are computed again on the way back.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from avsnn.models import kernels
from avsnn.models.kernels.layer import Layer

_LIBRARY = torch.library.Library("avsnn", "DEF")  # type: ignore[no-untyped-call]


def _operator(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function the operator of its name.

    As ``torch.library.custom_op`` does it, which however imports torch's compiler when an operator
    is first called: 1.7 s and 145 MB that an evaluation has no use for.
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
) -> Tensor:
    """Spikes of ``current * scale + shift``; differentiable where there is no scale.

    Args:
        current: ``[T, B, C, ...]``, or ``[B, C, ...]`` where it is constant.
        scale: ``[C]``, or None for the current itself.
        shift: ``[C]``, with a scale.
        steps: T; this and what follows is a :class:`Layer`, piece by piece, as operators take it.
        constant: every step reads the same current.
        pooled: max pooling stands behind the spikes.
        tau: membrane time constant, in steps.
        threshold: potential at which a neuron fires.
        slope: of the surrogate.

    Returns:
        ``[T, B, C, ...]``.
    """
    layer = Layer(steps, constant, pooled, tau, threshold, slope)
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
    """The gradient of a current from that of its spikes."""
    layer = Layer(steps, constant, pooled, tau, threshold, slope)
    used = kernels.of(current)
    exact = used.exact(current)
    grad = used.exact(grad.to(current.dtype))
    out: Tensor = used.fire_backward(grad, exact, None, None, None, layer)[0]
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
) -> tuple[Tensor, Tensor]:
    """Batch norm with the statistics of this batch, then neurons.

    Returns:
        spikes as :func:`fire`; mean and biased variance of each channel, ``[2, C]``, which carry no
        gradient.
    """
    layer = Layer(steps, constant, pooled, tau, threshold, slope)
    used = kernels.of(current)
    exact = used.exact(current)
    statistics = used.moments(exact if constant else exact.flatten(0, 1))
    scale = weight * torch.rsqrt(statistics[1] + eps)
    return _fire(exact, scale, bias - statistics[0] * scale, layer).to(current.dtype), statistics


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
    """Gradients of current, weight and bias from that of the spikes."""
    layer = Layer(steps, constant, pooled, tau, threshold, slope)
    used = kernels.of(current)
    exact = used.exact(current)
    grad = used.exact(grad.to(current.dtype))
    mean, variance = statistics.unbind()
    inverse = torch.rsqrt(variance + eps)
    scale = weight * inverse
    out, sums = used.fire_backward(grad, exact, scale, bias - mean * scale, mean, layer)
    count = exact.numel() // len(mean)
    total, product = sums.t().contiguous().unbind()
    # Batch norm: scale * (d - mean(d) - x_hat * mean(d * x_hat))
    slant = product / count * inverse * inverse
    flat, x = (out, exact) if constant else (out.flatten(0, 1), exact.flatten(0, 1))
    used.norm_backward(flat, x, scale, -scale * slant, scale * (mean * slant - total / count))
    return out.to(current.dtype), product * inverse, total


@_operator
def spike_conv(
    spikes: Tensor, packed: Tensor, weight: Tensor, bias: Tensor | None, fired: int
) -> Tensor:
    """Convolution of spikes that keeps their places, by adding weights where they are few.

    Args:
        spikes: ``[F, C, H, W]`` or ``[F, C, N]``; or sums of up to three spikes.
        packed: the same, one byte each, which is what is saved of them.
        weight: ``[C', C, 3, 3]`` or ``[C', C, 1]``.
        bias: ``[C']``.
        fired: how many of them are not zero.

    Returns:
        ``[F, C', H, W]`` or ``[F, C', N]``.
    """
    out = kernels.cpu.spike_conv(packed, weight, bias, fired)
    if out is not None:
        return out
    convolve = functional.conv2d if weight.dim() == 4 else functional.conv1d
    return convolve(spikes, weight, bias, padding=weight.shape[-1] // 2)


@_operator
def spike_conv_backward(
    grad: Tensor, packed: Tensor, weight: Tensor, biased: bool, fired: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of spikes, weights and bias; that of a bias that there is not is empty."""
    grad = grad.contiguous()
    of_weight = kernels.cpu.spike_conv_backward(grad, packed, weight, fired)
    if of_weight is None:
        axes = weight.dim() - 2
        _, of_weight, _ = torch.ops.aten.convolution_backward(
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
        back = functional.conv_transpose2d(grad, weight, padding=1)
    else:
        back = functional.conv1d(grad, weight.transpose(0, 1))
    others = [axis for axis in range(grad.dim()) if axis != 1]
    of_bias = grad.sum(others) if biased else grad.new_empty(0)
    return back.contiguous(), of_weight.contiguous(), of_bias


def _fire(current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: Layer) -> Tensor:
    used = kernels.of(current)
    spikes: Tensor = used.fire(used.exact(current), scale, shift, layer)
    return spikes.to(current.dtype)


def _shape_of_fire(
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    steps: int,
    constant: bool,
    pooled: bool,
    *rest: float,
) -> Tensor:
    return current.new_empty(Layer(steps, constant, pooled, *rest).spikes(current))


def _shape_of_fire_backward(grad: Tensor, current: Tensor, *_rest: float) -> Tensor:
    return torch.empty_like(current, memory_format=torch.contiguous_format)


def _shape_of_norm_fire(
    current: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    steps: int,
    constant: bool,
    pooled: bool,
    *rest: float,
) -> tuple[Tensor, Tensor]:
    spikes = Layer(steps, constant, pooled, *rest).spikes(current)
    return current.new_empty(spikes), weight.new_empty((2, len(weight)))


def _shape_of_norm_fire_backward(
    grad: Tensor, current: Tensor, weight: Tensor, bias: Tensor, *_rest: float
) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty_like(current, memory_format=torch.contiguous_format)
    return out, torch.empty_like(weight), torch.empty_like(weight)


def _shape_of_spike_conv(spikes: Tensor, packed: Tensor, weight: Tensor, *_rest: Any) -> Tensor:
    return spikes.new_empty((len(spikes), len(weight), *spikes.shape[2:]))


def _shape_of_spike_conv_backward(
    grad: Tensor, packed: Tensor, weight: Tensor, biased: bool, fired: int
) -> tuple[Tensor, Tensor, Tensor]:
    back = grad.new_empty(packed.shape)
    return back, torch.empty_like(weight), weight.new_empty(len(weight) if biased else 0)


def _save_spike_conv(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, packed, weight, bias, ctx.fired = inputs
    ctx.biased = bias is not None
    ctx.save_for_backward(packed, weight)


def _back_through_spike_conv(ctx, grad):  # type: ignore[no-untyped-def]
    back, of_weight, of_bias = spike_conv_backward(grad, *ctx.saved_tensors, ctx.biased, ctx.fired)
    return back, None, of_weight, of_bias if ctx.biased else None, None


def _save_fire(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    current, scale, _, *rest = inputs
    if scale is not None and ctx.needs_input_grad[0]:
        raise RuntimeError("Neurons with a scale of their own are for evaluation alone.")
    ctx.save_for_backward(current)
    ctx.rest = rest


def _back_through_fire(ctx, grad):  # type: ignore[no-untyped-def]
    (current,) = ctx.saved_tensors
    return fire_backward(grad, current, *ctx.rest), *(None,) * 8


def _save_norm_fire(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    current, weight, bias, *rest = inputs
    _, statistics = output
    ctx.mark_non_differentiable(statistics)
    ctx.save_for_backward(current, weight, bias, statistics)
    ctx.rest = rest


def _back_through_norm_fire(ctx, grad, _statistics):  # type: ignore[no-untyped-def]
    return *norm_fire_backward(grad, *ctx.saved_tensors, *ctx.rest), *(None,) * 7


for _name, _shape in (
    ("fire", _shape_of_fire),
    ("fire_backward", _shape_of_fire_backward),
    ("norm_fire", _shape_of_norm_fire),
    ("norm_fire_backward", _shape_of_norm_fire_backward),
    ("spike_conv", _shape_of_spike_conv),
    ("spike_conv_backward", _shape_of_spike_conv_backward),
):
    torch.library.register_fake(f"avsnn::{_name}", _shape)

for _name, _back, _save in (
    ("fire", _back_through_fire, _save_fire),
    ("norm_fire", _back_through_norm_fire, _save_norm_fire),
    ("spike_conv", _back_through_spike_conv, _save_spike_conv),
):
    torch.library.register_autograd(f"avsnn::{_name}", _back, setup_context=_save)
