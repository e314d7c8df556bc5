"""Checkpoints that cannot run code, are written whole or not at all, and notice damage.

A checkpoint is a safetensors file. The metadata of the file hold a few facts, and the SHA-256 of
tensors and facts.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from avsnn.errors import RunError, UserError
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
    write_atomically(path, pack_checkpoint(checkpoint))


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a checkpoint file; the same content gives the same bytes."""
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    digest = _digest(tensors, checkpoint.facts)
    return _packed(tensors, {**checkpoint.facts, "sha256": digest})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and compare its content with its SHA-256.

    Raises:
        DamagedError: the file is cut, a bit of the file was flipped, or the file is no checkpoint.
        RunError: the machine cannot read the file, so nobody knows whether the file is damaged.
    """
    # safetensors would map the file into memory, where an I/O error kills the process.
    return parse_checkpoint(path, read_bytes(path))


def parse_checkpoint(path: Path, content: bytes) -> Checkpoint:
    """Return the checkpoint that a file holds, and compare its content with its SHA-256.

    Args:
        path: path of the file, for messages.
        content: the bytes of the file.

    Raises:
        DamagedError: like :func:`read_checkpoint`.
    """
    try:
        tensors = load(content)
        facts = json.loads(_metadata(content)["avsnn"])
        digest = facts.pop("sha256")
    except (
        SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DamagedError(f"{path} is damaged ({reason}).") from None
    if _digest(tensors, facts) != digest:
        raise DamagedError(f"{path} is damaged (it holds other bytes than were written).")
    return Checkpoint(tensors, facts)


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a checkpoint.

    Raises:
        RunError: the machine cannot read the file, so nobody knows whether the file is damaged.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(
            f"{path} cannot be read: {error.strerror}. Nothing was changed; make the file readable "
            "and run the same command again."
        ) from None


def _metadata(content: bytes) -> Any:
    """Return the metadata of a safetensors file: 8 bytes give the length of a JSON header."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def _packed(tensors: dict[str, Tensor], facts: dict[str, Any]) -> bytes:
    # All facts under one key: safetensors does not keep the order of keys, so the bytes would vary.
    return save(tensors, metadata={"avsnn": json.dumps(facts, sort_keys=True)})


def _digest(tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    return hashlib.sha256(_packed(tensors, facts)).hexdigest()
