"""Checkpoints of the authors' code to ours."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError

from avsnn.errors import UserError
from avsnn.models.zoo import AuthorsState, import_authors_state
from avsnn.pipeline.runs.checkpoint import Checkpoint, write_checkpoint
from avsnn.strict_model import StrictModel


class ConvertSettings(StrictModel):
    """What the weights do not tell by themselves."""

    steps: int = Field(default=4, ge=1, description="T; no weight depends on it")
    heads: int = Field(default=16, ge=1, description="attention heads")
    alpha: float = Field(default=1.5, ge=0, description="share of the cross-modal residual")
    method: str | None = Field(default=None, description="where the weights fit more than one")
    attention: Literal["spatio-temporal", "spatial", "temporal"] | None = Field(
        default=None, description="spatial and temporal attention have the same weights"
    )


def convert_checkpoint(file: Path, target: Path, settings: ConvertSettings) -> AuthorsState:
    """Reads a ``.pth.tar`` or a bare state dict, writes safetensors with the model's settings.

    The metadata of the result hold, as JSON under ``avsnn``, ``settings`` and ``classes``:
    ``build(ModelSettings(**settings), classes=classes)`` takes its tensors strictly.

    Raises:
        UserError: the file is missing, is no checkpoint that is safe to read, or holds the weights
            of another network.
    """
    state = _read(file)
    if target.is_dir():
        raise UserError(f"{target} is a folder; give the name of the file to write.")
    try:
        found = import_authors_state(state, **settings.model_dump())
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"{file} cannot be converted: {reason}") from None
    except ValueError as error:
        raise UserError(f"{file} cannot be converted: {error}") from None
    facts = {"settings": found.settings.model_dump(), "classes": found.classes}
    write_checkpoint(target, Checkpoint(dict(found.state), facts))
    return found


def _read(file: Path) -> Mapping[str, torch.Tensor]:
    if not file.is_file():
        raise UserError(f"{file} is no file; give a checkpoint of the authors' code.")
    try:
        # A pickle can run code when it is read; this reads tensors and plain containers only.
        with warnings.catch_warnings(action="ignore"):
            loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # What a reader of hostile bytes may raise is anything; its own advice would be to trust it.
        raise UserError(
            f"{file} is no checkpoint that can be read safely: it is cut, no checkpoint at all, or "
            f"would run code ({type(error).__name__})."
        ) from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    tensors = isinstance(state, Mapping) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    )
    if not tensors or not state:
        raise UserError(f"{file} holds no state dict; give a checkpoint of the authors' code.")
    return dict(state)
