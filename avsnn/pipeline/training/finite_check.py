"""Notices inputs, losses, gradients and weights that are NaN or infinite.

A step leaves its result on the device, because reading a number makes a GPU wait. The training loop
reads the result where it reads figures anyway, and before it saves anything.
"""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from avsnn.errors import RunError
from avsnn.pipeline.training.distributed import ProcessGroup

# What a step checks, in the order in which a bad value spreads.
CHECKED = ("an input", "the loss", "the norm of the gradient")


# A sentence about a bad batch names so many of its clips.
CLIPS_NAMED = 3


class BadStep(NamedTuple):
    """The first step with a value that is NaN or infinite; epoch and step count from 0."""

    epoch: int
    step: int
    what: str


class FiniteCheck:
    """Remembers the first step of this process with a value that is NaN or infinite.

    Args:
        device: the device that computes.
    """

    def __init__(self, device: torch.device) -> None:
        # Epoch, step and the number of the check in one integer; 0 as long as all is well.
        self._first = torch.zeros((), dtype=torch.int64, device=device)
        self._place = torch.zeros_like(self._first)

    def start_step(self, *, epoch: int, step: int) -> None:
        """Set the step that ``note`` checks, on the device, where a CUDA graph reads the step."""
        self._place.fill_((epoch << 32) + step)

    def note(self, *, inputs: tuple[Tensor, ...], loss: Tensor, norm: Tensor) -> None:
        """Check the values of one step without waiting for the device."""
        bad_input = torch.stack([~tensor.isfinite().all() for tensor in inputs]).any()
        bad = torch.stack([bad_input, ~loss.isfinite(), ~norm.isfinite()])
        code = self._place * len(CHECKED) + bad.int().argmax() + 1
        is_first = bad.any() & (self._first == 0)
        self._first.copy_(torch.where(is_first, code, self._first))

    def first_bad_step(self, group: ProcessGroup) -> BadStep | None:
        """Return the first bad step of all processes of a group; None if there is none."""
        found = [code for code in group.concatenate(self._first.view(1)).tolist() if code]
        if not found:
            return None
        place, number = divmod(min(found) - 1, len(CHECKED))
        return BadStep(place >> 32, place & 0xFFFFFFFF, CHECKED[number])


def is_finite(model: nn.Module) -> bool:
    """Return whether no weight and no running statistic of a model is NaN or infinite."""
    return all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def not_finite_error(bad: BadStep, *, run: Path, lr: float, clips: Sequence[str]) -> RunError:
    """Return the error to raise for a bad step.

    Args:
        bad: the step.
        run: the run folder.
        lr: learning rate of the step.
        clips: keys of the clips of the step.
    """
    return RunError(
        f"{run}: {bad.what} is NaN or infinite in epoch {bad.epoch + 1}, step {bad.step + 1} "
        f"(learning rate {lr:.4g}; first clips of the batch: {', '.join(clips[:CLIPS_NAMED])}). "
        "The last resume point is from before; lower optimizer.base_lr, set optimizer.clip_norm, "
        "or check these clips."
    )


def require_finite_loss(loss: float, part: str, epoch: int) -> None:
    """Check the loss on the part that chooses the epoch; the epoch counts from 0.

    Raises:
        RunError: the loss is NaN or infinite.
    """
    if not isfinite(loss):
        raise RunError(
            f"the loss on {part} is NaN or infinite after epoch {epoch + 1}, which is not saved; "
            f"check the {part} clips with 'avsnn verify', or lower optimizer.base_lr."
        )
