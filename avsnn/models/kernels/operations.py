"""The kernels as torch operators.

They are opaque to a compiler, transparent to autocast, and differentiable once. What they save is
the current they were given; potentials are computed again on the way back.
"""

import torch
from torch import Tensor
from torch.nn import functional

from avsnn.models import kernels
from avsnn.models.kernels.layer import Layer


@torch.library.custom_op("avsnn::fire", mutates_args=())
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


@torch.library.custom_op("avsnn::fire_backward", mutates_args=())
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


@torch.library.custom_op("avsnn::norm_fire", mutates_args=())
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


@torch.library.custom_op("avsnn::norm_fire_backward", mutates_args=())
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


@torch.library.custom_op("avsnn::spike_conv", mutates_args=())
def spike_conv(spikes: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """3x3 convolution of spikes with padding 1, by the kernels where those are quicker.

    Args:
        spikes: ``[F, C, H, W]``, 0 or 1.
        weight: ``[C', C, 3, 3]``.

    Returns:
        ``[F, C', H, W]``, and the spikes as one byte each, which is what is saved of them.
    """
    packed = spikes.to(torch.uint8, memory_format=torch.contiguous_format)
    out = kernels.cpu.spike_conv(packed, weight) if kernels.of(weight) is kernels.cpu else None
    return functional.conv2d(spikes, weight, padding=1) if out is None else out, packed


@torch.library.custom_op("avsnn::spike_conv_backward", mutates_args=())
def spike_conv_backward(grad: Tensor, packed: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of spikes and weights."""
    grad = grad.contiguous()
    by_spikes = kernels.of(weight) is kernels.cpu
    rows = kernels.cpu.spike_conv_backward(grad, packed, weight) if by_spikes else None
    spikes = packed.to(weight.dtype) if rows is None else packed
    back, of_weight, _ = torch.ops.aten.convolution_backward(
        grad,
        spikes if rows is None else grad.new_empty(packed.shape),
        weight,
        None,
        [1, 1],
        [1, 1],
        [1, 1],
        False,
        [0, 0],
        1,
        [True, rows is None, False],
    )
    of_weight = of_weight if rows is None else rows
    return back.contiguous(), of_weight.contiguous()


def _fire(current: Tensor, scale: Tensor | None, shift: Tensor | None, layer: Layer) -> Tensor:
    used = kernels.of(current)
    spikes: Tensor = used.fire(used.exact(current), scale, shift, layer)
    return spikes.to(current.dtype)


@fire.register_fake
def _(
    current: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    steps: int,
    constant: bool,
    pooled: bool,
    *rest: float,
) -> Tensor:
    return current.new_empty(Layer(steps, constant, pooled, *rest).spikes(current))


@fire_backward.register_fake
def _(grad: Tensor, current: Tensor, *_rest: float) -> Tensor:
    return torch.empty_like(current, memory_format=torch.contiguous_format)


@norm_fire.register_fake
def _(
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


@norm_fire_backward.register_fake
def _(
    grad: Tensor, current: Tensor, weight: Tensor, bias: Tensor, *_rest: float
) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty_like(current, memory_format=torch.contiguous_format)
    return out, torch.empty_like(weight), torch.empty_like(weight)


@spike_conv.register_fake
def _(spikes: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    frames, _, height, width = spikes.shape
    packed = torch.empty_like(spikes, dtype=torch.uint8, memory_format=torch.contiguous_format)
    return spikes.new_empty((frames, len(weight), height, width)), packed


@spike_conv_backward.register_fake
def _(grad: Tensor, packed: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return grad.new_empty(packed.shape), torch.empty_like(weight)


def _save_spike_conv(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], inputs[1])


def _back_through_spike_conv(ctx, grad, _packed):  # type: ignore[no-untyped-def]
    return spike_conv_backward(grad, *ctx.saved_tensors)


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


fire.register_autograd(_back_through_fire, setup_context=_save_fire)
norm_fire.register_autograd(_back_through_norm_fire, setup_context=_save_norm_fire)
spike_conv.register_autograd(_back_through_spike_conv, setup_context=_save_spike_conv)
