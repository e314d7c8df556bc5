"""The command `evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from avsnn.cli.options import AsJson, Device

PartName = Literal["train", "val", "test"]
Run = Annotated[Path, typer.Argument(help="Run folder that 'avsnn train' made.")]
Part = Annotated[PartName, typer.Option(help="Part of the split to measure on.")]
# --split is the former name of --part, and is kept for one release.
OldPart = Annotated[PartName | None, typer.Option("--split", hidden=True)]
MovedRoot = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder that holds the data sets, if they moved after the training.",
    ),
]


def evaluate_command(
    run: Run,
    part: Part = "test",
    old_part: OldPart = None,
    root: MovedRoot = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure the best checkpoint of a run on one part of the split, and write a report.

    The measures are top-1, top-5, loss, precision, recall and F1 of every class, and the confusion
    matrix. evaluate prints the measures, and writes them to RUN/report/PART.json and, with
    pictures, to RUN/report/index.html.
    """
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.evaluation import print_evaluation
    from avsnn.cli.screen.progress import make_progress
    from avsnn.pipeline.evaluation.evaluate import evaluate
    from avsnn.pipeline.evaluation.report import write_report
    from avsnn.pipeline.inference.device import choose_device

    result, measured_before = evaluate(
        run,
        part=old_part or part,
        root=root,
        device=choose_device(device),
        progress=make_progress(),
    )
    page = write_report(run)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_evaluation(result, measured_before=measured_before, page=page)
