"""Converts checkpoints of the authors' code to checkpoints of avsnn."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError

from avsnn.errors import UserError
from avsnn.models.zoo import AuthorsState, import_authors_state
from avsnn.pipeline.runs.checkpoint import Checkpoint, write_checkpoint
from avsnn.pydantic_base import StrictModel


class ConvertSettings(StrictModel):
    """Settings of the network that cannot be read from the shapes of the weights."""

    steps: int = Field(
        default=4,
        ge=1,
        le=1024,
        description="Number of time steps T; no weight depends on T (published: 4)",
    )
    heads: int = Field(
        default=16, ge=1, le=1024, description="Number of attention heads (published: 16)"
    )
    alpha: float = Field(
        default=1.5,
        ge=0,
        le=100,
        description="Factor of the cross-modal residual (published: 1.5)",
    )
    method: str | None = Field(
        default=None,
        description="Name of the fusion method; needed where the weights fit more than one method",
    )
    attention: Literal["spatio-temporal", "spatial", "temporal"] | None = Field(
        default=None,
        description="What the cross-modal attention looks over; needed to tell spatial attention "
        "from temporal attention, which have the same weights",
    )


def convert_checkpoint(file: Path, target: Path, settings: ConvertSettings) -> AuthorsState:
    """Convert a ``.pth.tar`` file or a bare state dict to a safetensors file with the settings.

    The metadata of the safetensors file hold JSON under ``avsnn``, with the keys ``settings`` and
    ``classes``. The network ``build(ModelSettings(**settings), classes=classes)`` loads the
    tensors of the file strictly.

    Args:
        file: the checkpoint of the authors' code.
        target: the safetensors file to write.
        settings: the settings that cannot be read from the weights.

    Returns:
        the weights under the names of avsnn, the settings of the network, and the names of the
        weights that were left out.

    Raises:
        UserError: the file is missing, cannot be read safely, or holds the weights of another
            network; or the target is a folder.
    """
    state = _read_state_dict(file)
    if target.is_dir():
        raise UserError(f"{target} is a folder; give the name of the file to write.")
    try:
        imported = import_authors_state(state, **settings.model_dump())
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"{file} cannot be converted: {reason}") from None
    except ValueError as error:
        raise UserError(f"{file} cannot be converted: {error}") from None
    facts = {"settings": imported.settings.model_dump(), "classes": imported.classes}
    write_checkpoint(target, Checkpoint(dict(imported.state), facts))
    return imported


def _read_state_dict(file: Path) -> Mapping[str, torch.Tensor]:
    if not file.is_file():
        raise UserError(f"{file} is no file; give a checkpoint of the authors' code.")
    try:
        # A pickle can run code when the pickle is read. With `weights_only`, torch reads nothing
        # but tensors and plain containers.
        with warnings.catch_warnings(action="ignore"):
            loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # Hostile bytes can make the reader raise any error. torch's own message would advise to
        # trust the file, so that message is not shown.
        raise UserError(
            f"{file} is no checkpoint that can be read safely: the file is cut, is no checkpoint "
            f"at all, or would run code ({type(error).__name__})."
        ) from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    tensors = isinstance(state, Mapping) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    )
    if not tensors or not state:
        raise UserError(f"{file} holds no state dict; give a checkpoint of the authors' code.")
    return dict(state)
