"""Derivatives that stand in for that of the step function, which is zero almost everywhere.

Each is a function of ``u = h - threshold`` and of one number that says how steep or wide it is.
A new one is a function here and its line in :data:`SURROGATES`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


def sigmoid_derivative(u: Tensor, slope: float) -> Tensor:
    """``slope * sig(slope * u) * (1 - sig(slope * u))`` (arXiv 2502.12488 uses slope 4)."""
    sigmoid = torch.sigmoid(slope * u)
    return slope * sigmoid * (1.0 - sigmoid)


def atan_derivative(u: Tensor, slope: float) -> Tensor:
    """``slope / 2 / (1 + (pi / 2 * slope * u) ** 2)``, of an arc tangent from 0 to 1.

    Slope 2 as in PLIF (arXiv 2007.05785).
    """
    return slope / 2.0 / (1.0 + (math.pi / 2.0 * slope * u).square())


def rectangular_derivative(u: Tensor, width: float) -> Tensor:
    """``1 / width`` where ``|u| < width / 2``, 0 elsewhere (STBP, Wu et al. 2018, width 1)."""
    return (u.abs() < width / 2.0).to(u.dtype) / width


class Surrogate(NamedTuple):
    """A derivative, and the slope or width that the paper it is from gives it."""

    derivative: Callable[[Tensor, float], Tensor]
    slope: float


SURROGATES: dict[str, Surrogate] = {
    "sigmoid": Surrogate(sigmoid_derivative, 4.0),
    "atan": Surrogate(atan_derivative, 2.0),
    "rectangular": Surrogate(rectangular_derivative, 1.0),
}


def slope_of(surrogate: str, slope: float | None) -> float:
    """``slope`` where there is one, otherwise what the surrogate's paper uses.

    Raises:
        ValueError: there is no such surrogate, or the slope is not positive.
    """
    if surrogate not in SURROGATES:
        raise ValueError(f"There is no surrogate '{surrogate}'; there are {', '.join(SURROGATES)}.")
    if slope is None:
        return SURROGATES[surrogate].slope
    if slope <= 0.0:
        raise ValueError(f"The slope of a surrogate must be positive, not {slope}.")
    return slope


class _Fire(torch.autograd.Function):
    """Saves the potentials, nothing else."""

    @staticmethod
    def forward(ctx: Any, potential: Tensor, threshold: float, name: str, slope: float) -> Tensor:
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(potential)
            ctx.surrogate = threshold, SURROGATES[name].derivative, slope
        return (potential >= threshold).to(potential.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (potential,) = ctx.saved_tensors
        threshold, derivative, slope = ctx.surrogate
        return grad * derivative(potential - threshold, slope), None, None, None


def fire(potential: Tensor, *, threshold: float, surrogate: str, slope: float) -> Tensor:
    """1 where the potential reaches the threshold, 0 elsewhere, in the dtype of ``potential``.

    The backward pass multiplies by the named derivative at ``potential - threshold``.
    """
    return _Fire.apply(potential, threshold, surrogate, slope)  # type: ignore[no-any-return, no-untyped-call]
