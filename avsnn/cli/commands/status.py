"""The command `status`."""

from pathlib import Path

from avsnn.cli.options import AsJson, Datasets, Root, Runs
from avsnn.errors import UserError

DEFAULT_ROOT = Path("data")


def status_command(
    root: Root = DEFAULT_ROOT,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
    datasets: Datasets = None,
) -> None:
    """Show the stages of all data sets (sizes, failures) and all runs (epochs, accuracy)."""
    # Before the first prepare, the folder of the default does not exist, and that is no mistake.
    if root != DEFAULT_ROOT and not root.exists():
        raise UserError(
            f"there is no folder {root}, so no data set is prepared there; --root takes the folder "
            "that 'avsnn prepare' filled. Data sets of your own are named with --datasets or "
            "AVSNN_DATASETS."
        )
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.status import print_status
    from avsnn.pipeline.listing import list_runs, list_stages

    (stage_rows, faults), run_rows = list_stages(root), list_runs(runs)
    if as_json:
        print_json({"stages": stage_rows, "faults": faults, "runs": run_rows})
    else:
        print_status(stage_rows, faults, run_rows)
