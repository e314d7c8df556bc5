"""The command `evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from avsnn.cli.options import AsJson, Device
from avsnn.errors import UserError

PartName = Literal["train", "val", "test"]
Run = Annotated[Path, typer.Argument(help="Run folder that 'avsnn train' made.")]
Part = Annotated[
    PartName | None, typer.Option(help="Part of the split to measure on, by default test.")
]
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
    part: Part = None,
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

    if part and old_part and part != old_part:
        raise UserError(
            f"--part {part} and --split {old_part} differ; --split is the former name of --part, "
            "so give --part alone."
        )
    results = evaluate(
        run,
        part=part or old_part or "test",
        root=root,
        device=choose_device(device),
        progress=make_progress(),
    )
    page = write_report(run)
    if as_json:
        print_json(results.evaluation.model_dump(mode="json"))
    else:
        print_evaluation(results.evaluation, measured_before=results.measured_before, page=page)
