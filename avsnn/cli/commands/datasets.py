"""The commands `datasets` and `datasets check`."""

from dataclasses import asdict
from pathlib import Path

import typer

from avsnn.cli.options import AsJson, Dataset, Datasets, Root, SplitName

datasets_app = typer.Typer(suggest_commands=False)


@datasets_app.callback(invoke_without_command=True)
def datasets_command(
    context: typer.Context,
    root: Root = Path("data"),
    as_json: AsJson = False,
    datasets: Datasets = None,
) -> None:
    """List all data sets: licence, size, clips, classes, splits, and what is prepared here."""
    if context.invoked_subcommand:
        # Hand the options on, so that `datasets --json check demo` and `datasets check demo --json`
        # do the same.
        context.default_map = {context.invoked_subcommand: {"root": root, "as_json": as_json}}
        return
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.datasets import print_datasets
    from avsnn.pipeline.listing.datasets import list_datasets

    rows = list_datasets(root)
    if as_json:
        print_json(rows)
    else:
        print_datasets(rows)


@datasets_app.command("check")
def check_command(
    dataset: Dataset,
    split: SplitName = None,
    root: Root = Path("data"),
    as_json: AsJson = False,
    datasets: Datasets = None,
) -> None:
    """Count what the parts of a split (train, val, test) share, such as speakers or files.

    check counts the clips of every part and class; the groups (such as speakers or recordings) that
    val or test shares with earlier parts; the clips of val and test that have a twin or a
    byte-identical file in an earlier part; and the clips that are known to be bad. All counts come
    from the manifest and from the data prepared here.
    """
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.datasets import print_split_check
    from avsnn.pipeline.prepare.split_check import check_split

    found = check_split(dataset, split, root=root)
    if as_json:
        print_json(asdict(found))
    else:
        print_split_check(found)
