"""Convolutions of spikes as torch operators; ``operators.py`` says what that is good for."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from avsnn.models.kernels import cpu
from avsnn.models.kernels.registration import operator, refuse_second_derivative


@operator()
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


@operator()
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


def _fake_spike_conv(spikes: Tensor, packed: Tensor, weight: Tensor, *_rest: Any) -> Tensor:
    return spikes.new_empty((len(spikes), len(weight), *spikes.shape[2:]))


def _fake_spike_conv_backward(
    grad: Tensor, packed: Tensor, weight: Tensor, biased: bool, fired: int
) -> tuple[Tensor, Tensor, Tensor]:
    grad_spikes = grad.new_empty(packed.shape)
    return grad_spikes, torch.empty_like(weight), weight.new_empty(len(weight) if biased else 0)


def _save_for_spike_conv(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, packed, weight, bias, ctx.fired = inputs
    ctx.biased = bias is not None
    ctx.save_for_backward(packed, weight)


def _backward_of_spike_conv(ctx, grad):  # type: ignore[no-untyped-def]
    refuse_second_derivative()
    grad_spikes, grad_weight, grad_bias = spike_conv_backward(
        grad, *ctx.saved_tensors, ctx.biased, ctx.fired
    )
    return grad_spikes, None, grad_weight, grad_bias if ctx.biased else None, None


torch.library.register_fake("avsnn::spike_conv", _fake_spike_conv)
torch.library.register_fake("avsnn::spike_conv_backward", _fake_spike_conv_backward)
torch.library.register_autograd(
    "avsnn::spike_conv", _backward_of_spike_conv, setup_context=_save_for_spike_conv
)
