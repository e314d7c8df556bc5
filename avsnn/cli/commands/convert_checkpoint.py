"""The command `convert-checkpoint`."""

from pathlib import Path
from typing import Annotated

import typer

from avsnn.cli.options import Assignments

AuthorsCheckpoint = Annotated[
    Path,
    typer.Argument(help="Checkpoint of the authors' code: a .pth.tar file or a bare state dict."),
]
Target = Annotated[Path, typer.Argument(help="Path of the safetensors file to write.")]


def convert_checkpoint_command(
    file: AuthorsCheckpoint, out: Target, assignments: Assignments = None
) -> None:
    """Convert a checkpoint of the authors' code into a checkpoint of avsnn.

    convert-checkpoint reads method, width C, number of classes and thresholds from the weights.
    Give other values with --set: steps (T, by default 4), heads (16), alpha (1.5), and method or
    attention if the weights fit more than one network.
    """
    from avsnn.cli.screen.checkpoints import print_conversion
    from avsnn.pipeline.runs.convert_checkpoint import ConvertSettings, convert_checkpoint
    from avsnn.pipeline.settings_overrides import build_settings

    settings = build_settings(ConvertSettings, (), assignments or ())
    print_conversion(convert_checkpoint(file, out, settings), out)
