"""Checkpoints that cannot run code, are whole or not there, and know when they are damaged.

A safetensors file whose metadata hold a few facts and the SHA-256 of the file without it. Resume
points are such files named by epoch and step, of which the last few are kept: where the newest is
damaged, the one before it serves.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from avsnn.errors import UserError
from avsnn.pipeline.files import write_atomically

RESUME = re.compile(r"resume-(\d+)-(\d+)\.safetensors")


class DamagedError(UserError):
    """A checkpoint that is not what was written."""


class Checkpoint(NamedTuple):
    """Tensors by name, and facts about them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class Position(NamedTuple):
    """Where a training stands: whole epochs done, and steps of the one after them."""

    epoch: int
    step: int


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes it whole or not at all; the same content gives the same bytes."""
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    digest = _digest(tensors, checkpoint.facts)
    write_atomically(path, _packed(tensors, {**checkpoint.facts, "sha256": digest}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads one and checks it.

    Raises:
        DamagedError: it is cut, a bit of it was flipped, or it is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["avsnn"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = facts.pop("sha256")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise DamagedError(f"{path} is damaged ({reason}).") from None
    if _digest(tensors, facts) != digest:
        raise DamagedError(f"{path} is damaged (it holds other bytes than were written).")
    return Checkpoint(tensors, facts)


def training_state(
    model: nn.Module, optimizer: Optimizer, average: nn.Module | None
) -> dict[str, Tensor]:
    """All that a training is made of, by names of one file: weights, moments, averages."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    if average is not None:
        state |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    return state


def restore_training(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: Optimizer, average: nn.Module | None
) -> dict[str, dict[str, Tensor]]:
    """Puts it back; returns what else the file holds, by the first word of its names."""
    kinds: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        kinds[kind][rest] = tensor
    moments: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in kinds.pop("optimizer", {}).items():
        index, _, moment = name.partition(".")
        moments[int(index)][moment] = tensor
    model.load_state_dict(kinds.pop("model"))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": dict(moments)})
    if average is not None:
        average.load_state_dict(kinds.pop("average"))
    return kinds


def resume_path(folder: Path, at: Position) -> Path:
    """The resume point of a position."""
    return folder / f"resume-{at.epoch:05d}-{at.step:07d}.safetensors"


def resume_points(folder: Path) -> dict[Position, Path]:
    """All resume points, the newest first."""
    found = {
        Position(int(match[1]), int(match[2])): path
        for path in folder.glob("resume-*")
        if (match := RESUME.fullmatch(path.name))
    }
    return dict(sorted(found.items(), reverse=True))


def keep_newest(folder: Path, count: int) -> None:
    """Removes all resume points but the newest."""
    for path in list(resume_points(folder).values())[count:]:
        path.unlink()


def newest_whole(folder: Path, say: Callable[[str], None]) -> tuple[Position, Checkpoint] | None:
    """The newest resume point that is not damaged; None where there is none.

    Says which are damaged, and removes them: what they held is computed again.
    """
    points = resume_points(folder)
    for at, path in points.items():
        try:
            return at, read_checkpoint(path)
        except DamagedError as error:
            last = path == list(points.values())[-1]
            then = (
                "There is no other: starting anew." if last else "Going on from the one before it."
            )
            say(f"{error} {then}")
            path.unlink()
    return None


def _packed(tensors: dict[str, Tensor], facts: dict[str, Any]) -> bytes:
    # One entry: safetensors keeps several in no order.
    return save(tensors, metadata={"avsnn": json.dumps(facts, sort_keys=True)})


def _digest(tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    return hashlib.sha256(_packed(tensors, facts)).hexdigest()
