"""The command `status`."""

from pathlib import Path
from typing import Annotated

import typer

from avsnn.cli.options import AsJson, Datasets, Root, Runs
from avsnn.errors import UserError

DEFAULT_ROOT = Path("data")

Sort = Annotated[
    str,
    typer.Option(
        metavar="KEY",
        help="Order of the runs: name, date, dataset, method, preset, seed, epochs, accuracy, "
        "test or state. The latest date and the highest accuracy come first.",
    ),
]


def status_command(
    root: Root = DEFAULT_ROOT,
    runs: Runs = Path("runs"),
    sort: Sort = "name",
    as_json: AsJson = False,
    datasets: Datasets = None,
) -> None:
    """Show the stages of all data sets, and all runs: settings, epochs and accuracy.

    Below the name of a run stand the settings that differ from the defaults and from the preset of
    the data set, and a preset if the settings are those of a preset. The column "best" is the
    accuracy of the best epoch on the part that chooses the epoch, and "test" is what 'avsnn
    evaluate' measured. A run is "running" while a process on this machine writes into its folder.
    """
    # Before the first prepare, the folder of the default does not exist, and that is no mistake.
    if root != DEFAULT_ROOT and not root.exists():
        raise UserError(
            f"there is no folder {root}, so no data set is prepared there; --root takes the folder "
            "that 'avsnn prepare' filled. Data sets of your own are named with --datasets or "
            "AVSNN_DATASETS."
        )
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.status import print_status
    from avsnn.pipeline.listing.datasets import list_stages
    from avsnn.pipeline.listing.runs import list_runs

    run_rows = list_runs(runs, sort=sort)
    stage_rows, faults = list_stages(root)
    if as_json:
        print_json({"stages": stage_rows, "faults": faults, "runs": run_rows})
    else:
        print_status(stage_rows, faults, run_rows, root=root, runs=runs)
