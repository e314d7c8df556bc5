"""Converts checkpoints of the authors' code to checkpoints of avsnn."""

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError

from avsnn.errors import UserError
from avsnn.models.zoo import AuthorsState, build, import_authors_state
from avsnn.pipeline.engine.atomic_files import not_written_error
from avsnn.pipeline.runs.checkpoint import Checkpoint, write_checkpoint
from avsnn.pipeline.settings_overrides import first_mistake
from avsnn.pydantic_base import StrictModel

# Classes beside the weights in the files of timm's saver, which the authors use: the arguments of
# the command. To make an object of these classes runs no code.
HARMLESS: list[Any] = [argparse.Namespace]


# Channels of the visual image that `build` assumes: RGB.
DEFAULT_VISUAL_CHANNELS = 3


class ConvertSettings(StrictModel):
    """Settings of the network that cannot be read from the shapes of the weights."""

    steps: int = Field(
        default=4,
        ge=1,
        le=1024,
        description="Number of time steps T; no weight depends on T (published: 4, and 16 or 64 "
        "for event data)",
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
    ``classes``, and ``visual_channels`` for a network of event data. The network
    ``build(ModelSettings(**settings), classes=classes, visual_channels=visual_channels)`` loads
    the tensors of the file strictly.

    Args:
        file: the checkpoint of the authors' code.
        target: the safetensors file to write.
        settings: the settings that cannot be read from the weights.

    Returns:
        the weights under the names of avsnn, the settings of the network, and the names of the
        weights that were left out.

    Raises:
        UserError: the file is missing, cannot be read safely, or does not hold all weights of one
            network; or the target is a folder, is the file itself, or cannot be written.
    """
    try:
        if target.is_dir():
            raise UserError(f"{target} is a folder; give the name of the file to write.")
        if target.exists() and target.samefile(file):
            raise UserError(f"{target} is the checkpoint to convert; give another name to write.")
    except OSError as error:
        raise not_written_error(target, error) from None
    imported = read_authors_checkpoint(file, settings)
    facts: dict[str, Any] = {
        "settings": imported.settings.model_dump(),
        "classes": imported.classes,
    }
    if imported.visual_channels != DEFAULT_VISUAL_CHANNELS:
        # A network of images needs no number, so its files keep the bytes of earlier versions.
        facts["visual_channels"] = imported.visual_channels
    try:
        write_checkpoint(target, Checkpoint(imported.state, facts))
    except OSError as error:
        raise not_written_error(target, error) from None
    return imported


def read_authors_checkpoint(file: Path, settings: ConvertSettings) -> AuthorsState:
    """Read a checkpoint of the authors' code, without running code that the file may hold.

    Args:
        file: a ``.pth.tar`` file or a bare state dict.
        settings: the settings that cannot be read from the weights.

    Raises:
        UserError: the file is missing, cannot be read safely, or does not hold all weights of one
            network.
    """
    state = _read_state_dict(file)
    try:
        _require_plain_numbers(state)
        imported = import_authors_state(state, **settings.model_dump())
        _require_whole_network(imported)
    except ValidationError as error:
        raise UserError(f"{file} cannot be converted: {first_mistake(error)}.") from None
    except (ValueError, LookupError, ArithmeticError, RuntimeError, TypeError) as error:
        # A tensor of the right name may have a shape in which nothing is where it should be.
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{file} cannot be converted: {reason}.") from None
    # safetensors refuses tensors that share memory, so each gets memory of its own.
    tensors = {name: tensor.detach().clone() for name, tensor in imported.state.items()}
    return imported._replace(state=tensors)


def _require_plain_numbers(state: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that are no plain arrays of finite numbers.

    Raises:
        ValueError: the message names the first such tensor.
    """
    for name, tensor in state.items():
        is_plain = tensor.layout == torch.strided and not (
            tensor.is_quantized or tensor.is_meta or tensor.is_complex()
        )
        if not is_plain:
            raise ValueError(f"{name} is sparse, quantized, complex or without content")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} has more values than the file holds")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise ValueError(f"{name} holds a negative variance")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds a value that is NaN or infinite")


def _require_whole_network(imported: AuthorsState) -> None:
    """Refuse weights that the network of their settings does not load.

    Raises:
        ValueError: a weight is missing, is not of this network, or has another shape.
    """
    with torch.device("meta"):
        expected = build(
            imported.settings,
            classes=imported.classes,
            audio_channels=imported.audio_channels,
            visual_channels=imported.visual_channels,
        ).state_dict()
    found = imported.state
    for what, names in (
        ("are missing", [name for name in expected if name not in found]),
        ("are not of this network", [name for name in found if name not in expected]),
        (
            "have another shape than this network",
            [name for name in found if found[name].shape != expected[name].shape]
            if found.keys() <= expected.keys()
            else [],
        ),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(
                f"weights of a network of the method '{imported.settings.method}' {what}: "
                f"{', '.join(names[:3])}{more}"
            )


def _read_state_dict(file: Path) -> Mapping[str, torch.Tensor]:
    if not file.is_file():
        raise UserError(f"{file} is no file; give a checkpoint of the authors' code.")
    try:
        # A pickle can run code when the pickle is read. With `weights_only`, torch reads nothing
        # but tensors, plain containers and the classes of the allow-list.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(HARMLESS):
            loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None
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
