"""Surrogate gradients: functions that replace the derivative of the step function.

The derivative of the step function is zero almost everywhere, so no gradient would pass a neuron.
Each surrogate is a function of ``u = h - threshold`` and of one number, the slope or the width. A
new surrogate is one function and one line ``SURROGATES["NAME"] = Surrogate(FUNCTION, SLOPE)``, in
this file or in a plugin.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from avsnn.registry import Registry, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable


def sigmoid_derivative(u: Tensor, slope: float) -> Tensor:
    """Return ``slope * sig(slope * u) * (1 - sig(slope * u))``.

    arXiv 2502.12488 uses this surrogate with slope 4.
    """
    sigmoid = torch.sigmoid(slope * u)
    return slope * sigmoid * (1.0 - sigmoid)


def atan_derivative(u: Tensor, slope: float) -> Tensor:
    """Return ``slope / 2 / (1 + (pi / 2 * slope * u) ** 2)``.

    This is the derivative of an arc tangent that rises from 0 to 1. PLIF (arXiv 2007.05785) uses
    slope 2.
    """
    return slope / 2.0 / (1.0 + (math.pi / 2.0 * slope * u).square())


def rectangular_derivative(u: Tensor, width: float) -> Tensor:
    """Return ``1 / width`` where ``|u| < width / 2``, and 0 elsewhere.

    STBP (Wu et al. 2018) uses width 1.
    """
    return (u.abs() < width / 2.0).to(u.dtype) / width


class Surrogate(NamedTuple):
    """A surrogate and its default.

    Attributes:
        derivative: function of ``u = h - threshold`` and the slope.
        slope: slope or width that the paper of the surrogate uses.
    """

    derivative: Callable[[Tensor, float], Tensor]
    slope: float


def _check_surrogate(name: str, surrogate: Any) -> None:
    is_right = isinstance(surrogate, Surrogate) and callable(surrogate.derivative)
    if not is_right or not isinstance(surrogate.slope, int | float) or not surrogate.slope > 0:
        raise RegistryError(
            f"the surrogate {name!r} must be Surrogate(FUNCTION, SLOPE) of avsnn.models.surrogate, "
            "with a positive slope"
        )
    potentials = torch.linspace(-1, 1, 6).reshape(2, 3)
    try:
        found = surrogate.derivative(potentials, surrogate.slope)
    except Exception:
        # The training names file and line of an exception in the code of a plugin.
        return
    if not isinstance(found, Tensor) or found.shape != potentials.shape:
        shape = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise RegistryError(
            f"the surrogate {name!r} must return a tensor of the shape of its input, and returned "
            f"{shape} for [2, 3]"
        )


SURROGATES: Registry[Surrogate] = Registry(
    "surrogate", group="avsnn.surrogates", check=_check_surrogate
)
SURROGATES.update(
    {
        "sigmoid": Surrogate(sigmoid_derivative, 4.0),
        "atan": Surrogate(atan_derivative, 2.0),
        "rectangular": Surrogate(rectangular_derivative, 1.0),
    }
)
SURROGATES.protect()


def slope_of(surrogate: str, slope: float | None) -> float:
    """Return ``slope``, or the slope of the surrogate's paper if ``slope`` is None.

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
    """The step function with a surrogate gradient; saves only the potentials for backward."""

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
    """Return spikes: 1 where the potential reaches the threshold, 0 elsewhere.

    The spikes have the dtype of ``potential``. The backward pass multiplies the gradient by the
    derivative of the surrogate at ``potential - threshold``.
    """
    return _Fire.apply(potential, threshold, surrogate, slope)  # type: ignore[no-any-return, no-untyped-call]
