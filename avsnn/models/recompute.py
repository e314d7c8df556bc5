"""Activation checkpointing: blocks that keep their input and are computed again on the way back."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from torch import nn

_replays = 0


def replaying() -> bool:
    """Whether a block is being computed again, so that nothing of it may be counted twice."""
    return _replays > 0


@contextmanager
def _replay() -> Iterator[None]:
    global _replays
    _replays += 1
    try:
        yield
    finally:
        _replays -= 1


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _replay()


def recompute_blocks(model: nn.Module) -> None:
    """Make every stage of the patch splits, and every block behind them, keep its input alone.

    A training step computes their forward pass twice and gives the same gradients; running
    statistics and spike counts see the first pass only.

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
