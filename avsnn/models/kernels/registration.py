"""Register functions as torch operators, without torch's compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

_LIBRARY = torch.library.Library("avsnn", "DEF")  # type: ignore[no-untyped-call]


def operator(*, changes: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Any]:
    """Register a function as the torch operator ``avsnn::<name of the function>``.

    ``torch.library.custom_op`` does the same, but imports torch's compiler when an operator is
    first called. The import costs 1.7 s and 145 MB, and an evaluation does not need the compiler.

    Args:
        changes: names of the arguments that the function changes in place.
    """

    def register(function: Callable[..., Any]) -> Any:
        name = function.__name__
        schema = torch.library.infer_schema(function, mutates_args=changes)
        _LIBRARY.define(name + schema)  # type: ignore[no-untyped-call]
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        return getattr(torch.ops.avsnn, name).default

    return register


def refuse_second_derivative() -> None:
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


def without_gradient(ctx: Any, *results: Tensor) -> None:
    """Mark results of an operator through which no gradient flows.

    The backward pass of the operator gets None as the gradient of such a result, and as the
    gradient of every result whose gradient nobody computes. Otherwise torch would fill a tensor of
    the size of the result with zeros, which the backward pass does not read.
    """
    ctx.mark_non_differentiable(*results)
    ctx.set_materialize_grads(False)
