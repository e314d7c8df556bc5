"""A run that has a best checkpoint: its configuration and its weights, as read at one moment."""

import hashlib
import os
from functools import cached_property
from pathlib import Path

from avsnn.errors import UserError
from avsnn.pipeline.runs.checkpoint import best_checkpoint, read_bytes
from avsnn.pipeline.runs.config import RunConfig, load_config


class StoredRun:
    """The configuration of a run, and the bytes of its best checkpoint.

    A training that runs beside the reader may write other weights at any time. So the weights are
    read once, and whatever is computed or recorded belongs to the bytes that were read.

    Args:
        folder: the run folder.
        root: the folder that holds the data sets; None takes the folder of the training.

    Attributes:
        folder: the run folder.
        config: the configuration, with `root` as given.
        checkpoint: path of the best checkpoint.

    Raises:
        UserError: the folder is not a run, or has no checkpoint yet; or `root` is no folder.
    """

    def __init__(self, folder: Path, *, root: Path | None = None) -> None:
        self.folder = folder
        self.config: RunConfig = load_config(folder)
        if root is not None:
            if not root.is_dir():
                raise UserError(f"--root {root}: there is no such folder.")
            self.config = self.config.model_copy(update={"root": root.absolute()})
        self.checkpoint = best_checkpoint(folder)
        if not self.checkpoint.exists():
            raise UserError(
                f"{folder} has no checkpoint yet; run 'avsnn train' with --resume first. If the "
                "run is finished, restore its checkpoints/best.safetensors, or train in another "
                "folder."
            )

    @cached_property
    def weights(self) -> bytes:
        """The bytes of the best checkpoint.

        Raises:
            RunError: the machine cannot read the file.
        """
        return read_bytes(self.checkpoint)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the best checkpoint, as hexadecimal digits."""
        return hashlib.sha256(self.weights).hexdigest()


def run_name(folder: Path) -> str:
    """Return the name of a run folder. A name that is no UTF-8 cannot stand in JSON."""
    return os.fsencode(folder.absolute().name).decode(errors="backslashreplace")
