"""Checkpoints that cannot run code, are written whole or not at all, and notice damage.

A checkpoint is a safetensors file. The metadata of the file hold a few facts, and the SHA-256 of
tensors and facts.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import write_atomically


class DamagedError(UserError):
    """A checkpoint whose content is not what was written."""


class Checkpoint(NamedTuple):
    """Tensors by name, and facts about the tensors."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def best_checkpoint(run: Path) -> Path:
    """Return the path of the weights of the chosen epoch of a run."""
    return run / "checkpoints" / "best.safetensors"


def last_checkpoint(run: Path) -> Path:
    """Return the path of the weights of the last finished epoch of a run."""
    return run / "checkpoints" / "last.safetensors"


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all; the same content gives the same bytes."""
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    digest = _digest(tensors, checkpoint.facts)
    write_atomically(path, _packed(tensors, {**checkpoint.facts, "sha256": digest}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and compare its content with its SHA-256.

    Raises:
        DamagedError: the file is cut, a bit of the file was flipped, or the file is no checkpoint.
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


def _packed(tensors: dict[str, Tensor], facts: dict[str, Any]) -> bytes:
    # All facts under one key: safetensors does not keep the order of keys, so the bytes would vary.
    return save(tensors, metadata={"avsnn": json.dumps(facts, sort_keys=True)})


def _digest(tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    return hashlib.sha256(_packed(tensors, facts)).hexdigest()
