"""The command `reproduce`."""

from pathlib import Path
from typing import Annotated

import typer

from avsnn.cli.completion import complete_dataset, complete_table
from avsnn.cli.options import (
    AsJson,
    Assignments,
    Datasets,
    Device,
    LoaderWorkers,
    Root,
    Runs,
    SaveEvery,
)
from avsnn.errors import RunError

TableName = Annotated[
    str,
    typer.Argument(
        autocompletion=complete_table,
        help="Name of a table: methods, attention, alpha, temperature or snr.",
    ),
]
TrainingData = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="NAME",
        autocompletion=complete_dataset,
        help="Data set to train on.",
    ),
]
Seeds = Annotated[
    str, typer.Option(metavar="N,N,…", help="Seeds; every row is trained once with every seed.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the table with the finished runs, and do nothing.")
]


def reproduce_command(
    table: TableName,
    dataset: TrainingData = "crema-d",
    seeds: Seeds = "42,47,1024",
    assignments: Assignments = None,
    root: Root = Path("data"),
    runs: Runs = Path("runs"),
    device: Device = "auto",
    workers: LoaderWorkers = 0,
    save_every: SaveEvery = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    datasets: Datasets = None,
) -> None:
    """Train and evaluate every row of a published table; print measured and published figures.

    Every row is a preset, and every row is run with every seed. reproduce skips finished runs,
    continues interrupted runs and starts missing runs. reproduce names a run that cannot be read or
    does not succeed, goes on with the other runs, and ends with exit code 1. --set changes a
    setting of all rows, such as epochs; selection=test chooses the best epoch on the test part, as
    in the published results. After every run, reproduce writes the table as Markdown and as JSON to
    the folder 'tables' in the folder of --runs.
    """
    from avsnn.cli.screen.console import print_json, say
    from avsnn.cli.screen.experiments import print_reproduction
    from avsnn.cli.screen.progress import make_progress
    from avsnn.pipeline.experiments.reproduce import parse_seeds, plan_table, reproduce, summarise
    from avsnn.pipeline.inference.device import choose_device
    from avsnn.pipeline.training.options import RunOptions

    changes = assignments or []
    experiments = plan_table(
        table,
        dataset=dataset,
        seeds=parse_seeds(seeds),
        assignments=changes,
        root=root,
        runs=runs,
    )
    if dry_run:
        reproduction = summarise(table, experiments, changes)
    else:
        reproduction = reproduce(
            table,
            experiments,
            assignments=changes,
            options=RunOptions(
                device=choose_device(device), workers=workers, save_every=save_every
            ),
            runs=runs,
            progress=make_progress(lines=False),
            say=say,
        )
    if as_json:
        print_json(reproduction.model_dump())
    else:
        print_reproduction(reproduction, None if dry_run else runs)
    if failures := reproduction.failures:
        raise RunError(
            f"the table is incomplete: {len(failures)} of its runs cannot be read or did not "
            f"succeed (first: {failures[0]})"
        )
