"""The command `reproduce`."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from avsnn.cli.options import (
    AsJson,
    Assignments,
    Device,
    LoaderWorkers,
    Plugins,
    Root,
    Runs,
    SaveEvery,
)
from avsnn.errors import RunError

TableName = Annotated[
    str | None,
    typer.Argument(
        help="Name of a published table (methods, attention, alpha, temperature or snr), or a "
        "YAML file with a table of your own.",
        show_default=False,
    ),
]
TrainingData = Annotated[
    str, typer.Option("--dataset", metavar="NAME", help="Data set to train on.")
]
Seeds = Annotated[
    str, typer.Option(metavar="N,N,…", help="Seeds; every row is trained once with every seed.")
]
RowNames = Annotated[
    str | None,
    typer.Option(
        "--rows",
        metavar="ROW,ROW,…",
        help="Rows to train, by their names or their presets; by default all rows.",
    ),
]
Presets = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        metavar="NAME|FILE",
        help="Preset, or YAML file with settings, to lay under every row; repeat --preset for "
        "more.",
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
    seeds: Seeds = "42,47,1024",
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
    from avsnn.cli.screen.console import print_json, say
    from avsnn.cli.screen.experiments import print_reproduction
    from avsnn.cli.screen.progress import make_progress
    from avsnn.pipeline.experiments.emit import emit
    from avsnn.pipeline.experiments.experiment import (
        Changes,
        HowToRun,
        parse_seeds,
        plan_table,
        unfinished,
    )
    from avsnn.pipeline.experiments.read_table import choose_rows, load_table
    from avsnn.pipeline.experiments.reproduce import reproduce, summarise
    from avsnn.pipeline.runs.plugin import load_plugins

    load_plugins(plugins or ())
    found = load_table(table)
    changes = Changes(presets or (), assignments or ())
    how = HowToRun(device, workers, save_every, plugins or ())
    experiments = plan_table(
        choose_rows(found, rows),
        dataset=dataset,
        seeds=parse_seeds(seeds),
        changes=changes,
        root=root,
        runs=runs,
    )
    if form:
        missing = unfinished(experiments)
        print(emit(form, found.name, missing, how, os.environ), end="")
        say(f"{len(missing)} of {len(experiments)} runs are missing.")
        return
    if dry_run:
        reproduction = summarise(found, experiments, changes)
    else:
        reproduction = reproduce(
            found,
            experiments,
            changes=changes,
            how=how,
            jobs=jobs,
            runs=runs,
            progress=make_progress(lines=jobs > 1),
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
