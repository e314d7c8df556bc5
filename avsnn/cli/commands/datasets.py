"""The commands `datasets`, `datasets check` and `datasets new`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from avsnn.cli.options import AsJson, Dataset, Datasets, Root, SplitName
from avsnn.errors import UserError

datasets_app = typer.Typer(suggest_commands=False)

Clips = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="Folder that holds your clips, or a CSV in the folder."),
]
NewName = Annotated[
    str | None,
    typer.Option(metavar="N", help="Name of the data set, by default the name of the folder."),
]
Groups = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="REGEX",
        help="Regular expression whose first brackets find the speaker or recording in the name "
        "of a file, such as '^([^-]+)-'; with a slash, in the path. 'none' for no groups.",
    ),
]
Take = Annotated[
    Literal["link", "copy"] | None,
    typer.Option(help="How prepare takes the files: links (the default), or copies."),
]
AndPrepare = Annotated[bool, typer.Option("--prepare", help="Run 'avsnn prepare' afterwards.")]


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


@datasets_app.command("new")
def new_command(
    context: typer.Context,
    folder: Clips,
    name: NewName = None,
    group: Groups = None,
    take: Take = None,
    and_prepare: AndPrepare = False,
    root: Root = Path("data"),
    datasets: Datasets = None,
    as_json: AsJson = False,
) -> None:
    """Make a data set of a folder of your own clips: look, say what is there, write YAML and CSV.

    The folder holds a folder for each class with videos, or with images and sounds of the same
    names; folders of train, val and test may lie above or below. A CSV with a column of files and a
    column of classes works too. If a clip has no sound file, its sound is taken out of the video.

    new writes NAME.yaml and NAME.csv into ~/.config/avsnn/datasets, or into the folder that
    --datasets names, and changes nothing else. When the folder has changed, run the command again.
    """
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.new_dataset import (
        confirm_groups,
        print_new_dataset,
        print_next_commands,
        to_json,
    )
    from avsnn.cli.screen.progress import make_progress
    from avsnn.pipeline.new_dataset.new_dataset import new_dataset

    if as_json and and_prepare:
        raise UserError("--json and --prepare do not go together; run 'avsnn prepare' afterwards.")
    found = new_dataset(
        folder,
        name=name,
        group=group,
        take=take,
        ask=confirm_groups if not as_json else lambda _: "",
        progress=make_progress(lines=False),
    )
    if as_json:
        print_json(to_json(found))
        return
    print_new_dataset(found)
    if and_prepare:
        from avsnn.cli.commands.prepare import prepare_command

        prepare_command(found.name, root=root)
    # A folder that an environment variable names is found by the next commands, too.
    sources = [one.get_parameter_source("datasets") for one in (context, context.parent) if one]
    is_named_here = any(source and source.name == "COMMANDLINE" for source in sources)
    print_next_commands(
        found,
        root=root,
        datasets=datasets if is_named_here else None,
        is_prepared=and_prepare,
    )
