"""The command `status`."""

from pathlib import Path

from avsnn.cli.options import AsJson, Datasets, Root, Runs


def status_command(
    root: Root = Path("data"),
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
    datasets: Datasets = None,
) -> None:
    """Show the stages of all data sets (sizes, failures) and all runs (epochs, accuracy)."""
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.status import print_status
    from avsnn.pipeline.listing import list_runs, list_stages

    (stage_rows, faults), run_rows = list_stages(root), list_runs(runs)
    if as_json:
        print_json({"stages": stage_rows, "faults": faults, "runs": run_rows})
    else:
        print_status(stage_rows, faults, run_rows)
