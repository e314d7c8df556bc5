"""The command `evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from avsnn.cli.completion import complete_run
from avsnn.cli.options import AsJson, CacheFolder, CacheLimit, Datasets, Device, Plugins
from avsnn.errors import UserError

PartName = Literal["train", "val", "test"]
Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...",
        autocompletion=complete_run,
        help="Run folders that 'avsnn train' made, one or several.",
    ),
]
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


WithRobustness = Annotated[
    bool,
    typer.Option(
        "--robustness",
        help="Also measure the answers to noise of 0 to 30 dB, to a missing modality, and to the "
        "sound of another class.",
    ),
]
WithInsight = Annotated[
    bool,
    typer.Option(
        "--insight",
        help="Also measure firing rates, operations and energy, time steps, modalities, features, "
        "attention and fan-in.",
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write the report to this file; by default RUN/report/report.html, and for several "
        "runs report.html in the current folder.",
    ),
]


def evaluate_command(
    runs: Runs,
    part: Part = None,
    old_part: OldPart = None,
    robustness: WithRobustness = False,
    insight: WithInsight = False,
    page: Page = None,
    root: MovedRoot = None,
    device: Device = "auto",
    cache_dir: CacheFolder = None,
    cache_limit: CacheLimit = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
    datasets: Datasets = None,
) -> None:
    """Measure the best checkpoint of each run on one part of the split, and write a report.

    The measures are top-1 and top-5 with 95 % intervals, loss, calibration, precision, recall and
    F1 of every class, and the confusion matrix. Several runs are compared: McNemar's test between
    runs that answered to the same clips, mean and spread of runs that differ in their seed only.
    evaluate prints the measures, records the measures in RUN/report, and writes one page with
    pictures. What is recorded is not measured again.
    """
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.evaluation import as_value, print_page, print_results
    from avsnn.cli.screen.progress import make_progress
    from avsnn.pipeline.evaluation.comparison import compare
    from avsnn.pipeline.evaluation.evaluate import evaluate
    from avsnn.pipeline.inference.device import choose_device
    from avsnn.pipeline.report.page import write_report
    from avsnn.pipeline.report.place import choose_place
    from avsnn.pipeline.runs.plugin import load_plugins

    if part and old_part and part != old_part:
        raise UserError(
            f"--part {part} and --split {old_part} differ; --split is the former name of --part, "
            "so give --part alone."
        )
    target = choose_place(page, runs)
    load_plugins(plugins or ())
    progress, place = make_progress(), choose_device(device)
    results = [
        evaluate(
            run,
            part=part or old_part or "test",
            root=root,
            device=place,
            progress=progress,
            robustness=robustness,
            insight=insight,
        )
        for run in runs
    ]
    comparison = compare(results) if len(results) > 1 else None
    if as_json:
        print_json(as_value(results, comparison))
    else:
        print_results(results, comparison)
    # A page that cannot be written must not cost the measures.
    written = write_report(results, comparison, target)
    if written is None and page is not None:
        raise UserError(f"--out {page}: nobody may write there, so there is no page.")
    if not as_json:
        print_page(written, results)
