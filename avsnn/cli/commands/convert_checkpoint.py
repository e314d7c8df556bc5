"""The command `convert-checkpoint`."""

from pathlib import Path
from typing import Annotated

import typer

from avsnn.cli.options import Assignments, Datasets, Root

AuthorsCheckpoint = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Checkpoint of the authors' code: a .pth.tar file or a bare state dict.",
    ),
]
Target = Annotated[
    Path,
    typer.Argument(
        metavar="OUT",
        help="Run folder to make with --dataset; without --dataset, path of the safetensors file "
        "to write.",
    ),
]
DatasetOfRun = Annotated[
    str | None,
    typer.Option(
        metavar="DATASET", help="Prepared data set of the training; makes a whole run folder."
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, metavar="T", help="Number of time steps, which no weight tells."),
]
Heads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Number of attention heads, which no weight tells."),
]


def convert_checkpoint_command(
    file: AuthorsCheckpoint,
    out: Target,
    dataset: DatasetOfRun = None,
    steps: Steps = None,
    heads: Heads = None,
    assignments: Assignments = None,
    root: Root = Path("data"),
    datasets: Datasets = None,
) -> None:
    """Convert a checkpoint of the authors' code into a run, or into a file of weights.

    With --dataset, the result is a run folder for evaluate, predict and export. Without
    --dataset, the result is a safetensors file of the weights.

    convert-checkpoint reads method, width C, number of classes and thresholds from the weights.
    Give the rest: --steps (by default as published for the data set, or 4), --heads (16), --set
    alpha=A (1.5), and --set method=NAME or attention=NAME if the weights fit more than one network.
    With --dataset, --set also takes settings of a training such as data.split and data.size.
    """
    from avsnn.cli.screen.checkpoints import print_conversion, print_converted_run
    from avsnn.pipeline.experiments.presets import load_presets
    from avsnn.pipeline.runs.convert_checkpoint import ConvertSettings, convert_checkpoint
    from avsnn.pipeline.settings_overrides import build_settings
    from avsnn.pipeline.training.convert_run import convert_to_run

    words = list(assignments or ())
    words += [f"{name}={x}" for name, x in (("steps", steps), ("heads", heads)) if x is not None]
    if dataset is None:
        settings = build_settings(ConvertSettings, (), words)
        print_conversion(convert_checkpoint(file, out, settings), out)
        return
    converted = convert_to_run(
        file,
        out,
        dataset=dataset,
        root=root,
        presets=load_presets(dataset, ()),
        assignments=words,
    )
    print_converted_run(converted, out)
