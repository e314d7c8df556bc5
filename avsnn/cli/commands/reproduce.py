"""The command `reproduce`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from avsnn.cli.completion import complete_dataset, complete_table
from avsnn.cli.options import (
    AsJson,
    Assignments,
    Datasets,
    Device,
    LoaderWorkers,
    Plugins,
    Presets,
    Root,
    Runs,
    SaveEvery,
)
from avsnn.errors import RunError

if TYPE_CHECKING:
    from avsnn.pipeline.experiments.table_text import FilledTable

TableName = Annotated[
    str | None,
    typer.Argument(
        autocompletion=complete_table,
        help="Name of a table (methods, attention, alpha, temperature, snr or hard), or a YAML "
        "file with a table of your own.",
        show_default=False,
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
    str | None,
    typer.Option(
        metavar="N,N,…",
        help="Seeds; every row is trained once with every seed. By default the seeds of the "
        "table, which are 42,47,1024 unless the table says otherwise.",
    ),
]
RowNames = Annotated[
    str | None,
    typer.Option(
        "--rows",
        metavar="ROW,ROW,…",
        help="Rows to train, by their names or their presets; by default all rows.",
    ),
]
ConditionNames = Annotated[
    str | None,
    typer.Option(
        "--conditions",
        metavar="NAME,NAME,…",
        help="Conditions of the table to train under; by default all conditions.",
    ),
]
FoldNames = Annotated[
    str | None,
    typer.Option(
        "--folds",
        metavar="SPLIT,SPLIT,…",
        help="Folds of the table to train on; by default all folds.",
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Number of trainings at the same time, each in a process of its own that writes to "
        "RUN/log.txt. The trainings share the cores, and take turns with several GPUs.",
    ),
]
Emit = Annotated[
    Literal["commands", "slurm"] | None,
    typer.Option(
        "--emit",
        help="Train nothing: print the missing runs as commands, one line for each run, or as a "
        "job array for Slurm's sbatch.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the table with the finished runs, and do nothing.")
]


def reproduce_command(
    table: TableName = None,
    dataset: TrainingData = "crema-d",
    rows: RowNames = None,
    conditions: ConditionNames = None,
    folds: FoldNames = None,
    seeds: Seeds = None,
    presets: Presets = None,
    assignments: Assignments = None,
    root: Root = Path("data"),
    runs: Runs = Path("runs"),
    jobs: Jobs = 1,
    device: Device = "auto",
    workers: LoaderWorkers = 0,
    save_every: SaveEvery = None,
    form: Emit = None,
    dry_run: DryRun = False,
    plugins: Plugins = None,
    as_json: AsJson = False,
    datasets: Datasets = None,
) -> None:
    """Train and evaluate every row of a table with every seed; print the table.

    The table is a published table, whose published figures are printed too, or a file of your own:
    see docs/sweeps.md. reproduce skips finished runs, continues interrupted runs and starts
    missing runs. reproduce names a run that cannot be read or does not succeed, goes on with the
    other runs, and ends with exit code 1. --set changes a setting of all rows, such as epochs;
    selection=test chooses the best epoch on the test part, as in the published results. After
    every run, reproduce writes the table as Markdown and as JSON to the folder 'tables' in the
    folder of --runs.
    """
    from avsnn.cli.screen.console import say
    from avsnn.cli.screen.progress import make_progress
    from avsnn.pipeline.experiments.emit import emit
    from avsnn.pipeline.experiments.experiment import Changes, HowToRun, Wanted, plan_table
    from avsnn.pipeline.experiments.reproduce import reproduce, summarise
    from avsnn.pipeline.runs.plugin import load_plugins

    load_plugins(plugins or ())
    changes = Changes(presets or (), assignments or ())
    plan = plan_table(
        table,
        wanted=Wanted(rows, conditions, folds),
        dataset=dataset,
        seeds=seeds,
        changes=changes,
        root=root,
        runs=runs,
    )
    how = HowToRun(device, workers, save_every, plugins or ())
    if form:
        print(emit(form, plan, how, os.environ), end="")
        say(f"{len(plan.missing(plan.states()))} of {len(plan.experiments)} runs are missing.")
    elif dry_run:
        _show(summarise(plan, plan.states()), None, as_json)
    else:
        progress = make_progress(lines=jobs > 1)
        _show(reproduce(plan, how, jobs=jobs, progress=progress, say=say), runs, as_json)


def _show(reproduction: "FilledTable", runs: Path | None, as_json: bool) -> None:
    """Print a table.

    Args:
        reproduction: the table.
        runs: the folder of the run folders; None if the table was not written.
        as_json: print JSON.

    Raises:
        RunError: a run of the table cannot be read or did not succeed.
    """
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.experiments import print_reproduction

    if as_json:
        print_json(reproduction.model_dump())
    else:
        print_reproduction(reproduction, runs)
    if failures := reproduction.failures:
        raise RunError(
            f"the table is incomplete: {len(failures)} of its runs cannot be read or did not "
            f"succeed (first: {failures[0]})"
        )
