"""Activation checkpointing: a block saves only its input, and backward computes the block again."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

_recomputations = 0


def is_recomputing() -> bool:
    """Return whether a block is being computed for the second time.

    Running statistics and spike counts must skip the second time, or they would count it twice.
    """
    return _recomputations > 0


class _Recomputing:
    """A context in which a block is computed again; every backward pass enters the context."""

    def __enter__(self) -> None:
        global _recomputations
        _recomputations += 1

    def __exit__(self, *_error: object) -> None:
        global _recomputations
        _recomputations -= 1


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first and of the second computation of a block."""
    return nullcontext(), _Recomputing()


def recompute_blocks(model: nn.Module) -> None:
    """Make every stage of the patch splits, and every block behind them, save only its input.

    A training step then computes the forward pass of each block twice and gives the same gradients.
    Running statistics and spike counts change in the first computation only.

    Args:
        model: a network from ``zoo.build``; changed in place.
    """
    for name, module in model.named_modules():
        parts = name.split(".")
        is_stage = len(parts) == 3 and parts[1] == "stages"
        is_block = len(parts) == 1 and name.endswith(("fusion", "attention", "mlp"))
        if is_stage or is_block:
            forward = partial(checkpoint, module.forward, use_reentrant=False, context_fn=_contexts)
            module.forward = forward
