"""Resume points: where a training stands, and everything that the rest of the training needs.

A resume point is a checkpoint that is named by epoch and step. The last few resume points are kept:
if the newest one is damaged, the one before it serves.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import set_aside
from avsnn.pipeline.runs.checkpoint import (
    Checkpoint,
    DamagedError,
    read_checkpoint,
    write_checkpoint,
)
from avsnn.pipeline.training.state import TrainingState

RESUME = re.compile(r"resume-(\d+)-(\d+)\.safetensors")

# The first version called the totals of an epoch a tally; the name in the file stays, so that runs
# of that version can go on.
TOTALS = "tally"

STRATEGY = "strategy"


class Position(NamedTuple):
    """Where a training stands: the number of finished epochs, and of steps in the next epoch."""

    epoch: int
    step: int


START = Position(0, 0)

NEXT = "Going on from the one before it."


def save_resume_point(
    folder: Path,
    position: Position,
    state: TrainingState,
    totals: Mapping[str, Tensor],
    *,
    run: str,
    keep: int,
) -> None:
    """Write a resume point, and delete all but the newest ones.

    Args:
        folder: the folder of the run's checkpoints.
        position: where the training stands.
        state: network, optimizer, moving average and strategy.
        totals: what the unfinished epoch adds up to so far.
        run: fingerprint of the run.
        keep: number of resume points to keep.
    """
    tensors = training_tensors(state.model, state.optimizer, state.average)
    tensors |= {f"{TOTALS}.{name}": tensor for name, tensor in totals.items()}
    # A checkpoint takes no tensors that share their bytes.
    tensors |= {f"{STRATEGY}.{name}": tensor.clone() for name, tensor in _memory(state).items()}
    facts = {"run": run, "kernels": state.kernels}
    write_checkpoint(resume_path(folder, position), Checkpoint(tensors, facts))
    keep_newest(folder, keep)


def restore_resume_point(
    position: Position,
    checkpoint: Checkpoint,
    state: TrainingState,
    say: Callable[[str], None],
) -> Mapping[str, Tensor]:
    """Put a resume point back into a training.

    Returns:
        what the unfinished epoch adds up to so far.

    Raises:
        UserError: the resume point holds the tensors of another network.
    """
    if (before := checkpoint.facts.get("kernels")) != state.kernels:
        say(
            f"this run was computed with the kernels '{before}' and goes on with "
            f"'{state.kernels}': not bit for bit as without the cut"
        )
    try:
        rest = restore_training(checkpoint.tensors, state.model, state.optimizer, state.average)
        _restore_memory(_memory(state), rest.get(STRATEGY, {}))
    except (RuntimeError, LookupError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the resume point of epoch {position.epoch}, step {position.step} does not fit this "
            f"run ({reason}); choose another --run."
        ) from None
    return rest.get(TOTALS, {})


def _memory(state: TrainingState) -> dict[str, Tensor]:
    """Return what the strategy of balanced training keeps from step to step, by name."""
    return {} if state.strategy is None else state.strategy.memory


def _restore_memory(memory: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Copy what a strategy kept into its memory.

    Raises:
        ValueError: the memory has other names, shapes or dtypes than what is stored.
    """

    def form(tensor: Tensor | None) -> str:
        kind = "" if tensor is None else str(tensor.dtype).removeprefix("torch.")
        return "nothing" if tensor is None else f"{kind} of shape {list(tensor.shape)}"

    for name in sorted({*memory, *stored}):
        there, here = form(stored.get(name)), form(memory.get(name))
        if there != here:
            raise ValueError(f"the memory {name} of the strategy is {there} there, {here} here")
    for name, tensor in memory.items():
        tensor.copy_(stored[name])


def training_tensors(
    model: nn.Module, optimizer: Optimizer, average: nn.Module | None
) -> dict[str, Tensor]:
    """Return all tensors of a training by name: weights, moments of the optimizer, averages."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    return tensors


def restore_training(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: Optimizer, average: nn.Module | None
) -> dict[str, dict[str, Tensor]]:
    """Put the tensors of :func:`training_tensors` back.

    Returns:
        the other tensors of the file, by the first word of their names.
    """
    kinds: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        kinds[kind][rest] = tensor
    moments: dict[int, dict[str, Tensor]] = defaultdict(dict)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, tensor in kinds.pop("optimizer", {}).items():
        index, _, moment = name.partition(".")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # A checkpoint is contiguous. The optimizer goes through the memory of weight and
            # moments together, so both must have one memory format.
            kept = torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device)
            tensor = kept.copy_(tensor)
        moments[int(index)][moment] = tensor
    model.load_state_dict(kinds.pop("model"))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": dict(moments)})
    if average is not None:
        average.load_state_dict(kinds.pop("average"))
    return kinds


def resume_path(folder: Path, position: Position) -> Path:
    """Return the path of the resume point of a position."""
    return folder / f"resume-{position.epoch:05d}-{position.step:07d}.safetensors"


def resume_points(folder: Path) -> dict[Position, Path]:
    """Return all resume points of a folder, the newest first."""
    found = {
        Position(int(match[1]), int(match[2])): path
        for path in folder.glob("resume-*")
        if (match := RESUME.fullmatch(path.name))
    }
    return dict(sorted(found.items(), reverse=True))


def keep_newest(folder: Path, count: int) -> None:
    """Delete all resume points but the newest ``count``."""
    for path in list(resume_points(folder).values())[count:]:
        path.unlink()


def newest_undamaged(
    folder: Path, say: Callable[[str], None], *, epochs: int
) -> tuple[Position, Checkpoint] | None:
    """Return the newest resume point that can serve; None if there is none.

    A damaged resume point is said and renamed to ``NAME.damaged``: the training computes its
    content again. A resume point after the last epoch that has a line in ``metrics.jsonl`` is said
    and renamed to ``NAME.unused``, because only training can give the epoch its line again.

    Args:
        folder: the folder of the run's checkpoints.
        say: gets one sentence at a time that a person should read.
        epochs: number of epochs that have a line.

    Raises:
        RunError: the newest resume point cannot be read, so nobody knows whether it is damaged.
    """
    points = resume_points(folder)
    for position, path in points.items():
        is_last = path == list(points.values())[-1]
        then = "There is no other: starting anew." if is_last else NEXT
        if position.epoch > epochs:
            set_aside(path, "unused")
            say(f"{path} is not used, because metrics.jsonl ends with epoch {epochs}. {then}")
            continue
        try:
            return position, read_checkpoint(path)
        except DamagedError as error:
            kept = set_aside(path, "damaged")
            say(f"{error} It is kept as {kept.name}. {then}")
    return None
