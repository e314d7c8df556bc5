"""The arguments and options that several commands share."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from avsnn.cli.completion import complete_dataset, complete_preset, complete_run

Dataset = Annotated[
    str,
    typer.Argument(
        autocompletion=complete_dataset,
        help="Name of a data set; 'avsnn datasets' lists all data sets.",
    ),
]
Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", autocompletion=complete_run, help="Run folder that 'avsnn train' made."
    ),
]


def _remember_folder_of_datasets(folder: Path | None) -> Path | None:
    """Put the folder into the environment, where the catalogue and child processes find it."""
    if folder is not None:
        os.environ["AVSNN_DATASETS"] = str(folder.absolute())
    return folder


Datasets = Annotated[
    Path | None,
    typer.Option(
        "--datasets",
        metavar="DIR",
        envvar="AVSNN_DATASETS",
        callback=_remember_folder_of_datasets,
        help="Folder with the descriptions (YAML and CSV) of your own data sets, besides "
        "~/.config/avsnn/datasets, which avsnn always searches.",
    ),
]
Root = Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds the prepared data.")]
Runs = Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds the run folders.")]
Source = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Take the published files from this folder instead of downloading the files.",
    ),
]
PrepareWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        metavar="N",
        help="Largest number of worker processes, by default one per core. With 0, the command "
        "does all work in its own process.",
    ),
]
LoaderWorkers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=0,
        metavar="N",
        help="Number of processes that read batches. With 0, a thread reads the batches.",
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeat --set for more."),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="Device to compute on. With auto, a GPU if there is one."),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        envvar="AVSNN_PLUGIN",
        help="Python file of your own with methods, surrogates or strategies, which avsnn runs; "
        "repeat --plugin for more.",
    ),
]
ReaderPlugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Python file of your own with readers for files that avsnn cannot decode, which avsnn "
        "runs; repeat --plugin for more (docs/add-a-reader.md).",
    ),
]
Presets = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        metavar="NAME|FILE",
        autocompletion=complete_preset,
        help="Preset to lay over the settings of the data set (and under the rows of a table), "
        "such as 'healthy', or a YAML file of settings; repeat --preset for more. 'avsnn presets' "
        "lists all presets.",
    ),
]
SaveEvery = Annotated[
    int | None,
    typer.Option(
        "--save-every",
        min=1,
        metavar="STEPS",
        help="Save a resume point every STEPS steps too, not only after every epoch.",
    ),
]


def _remember_cache_folder(folder: Path | None) -> Path | None:
    """Put the folder into the environment, where all processes of the command find it."""
    if folder is not None:
        os.environ["AVSNN_CACHE_DIR"] = str(folder.absolute())
    return folder


def _remember_cache_limit(limit: str | None) -> str | None:
    """Put the limit into the environment, where all processes of the command find it."""
    if limit is not None:
        os.environ["AVSNN_CACHE_LIMIT"] = limit
    return limit


CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        envvar="AVSNN_CACHE_DIR",
        callback=_remember_cache_folder,
        help="Folder on a disk of this machine for copies of files of a store, by default "
        "~/.cache/avsnn/store; all processes of the machine share the copies.",
    ),
]
CacheLimit = Annotated[
    str | None,
    typer.Option(
        "--cache-limit",
        metavar="SIZE",
        envvar="AVSNN_CACHE_LIMIT",
        callback=_remember_cache_limit,
        help="The copies in --cache-dir take this much at most, such as 500GB, by default 50GB; "
        "the copies that were used longest ago are removed.",
    ),
]
SplitName = Annotated[
    str | None,
    typer.Option(
        "--split", metavar="NAME", help="Name of a split, by default the data set's default split."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Answer yes to the question, for use in a script.")
]
