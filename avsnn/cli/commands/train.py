"""The command `train`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from avsnn.cli.options import (
    Assignments,
    CacheFolder,
    CacheLimit,
    Dataset,
    Datasets,
    Device,
    LoaderWorkers,
    Plugins,
    Presets,
    Root,
    SaveEvery,
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Take the settings from this YAML file, such as config.yaml of a run, in place of the "
        "settings of the data set. --preset and --set change these settings.",
    ),
]
PrintConfig = Annotated[
    bool,
    typer.Option(
        "--print-config",
        help="Print all settings as a YAML file for --config, and train nothing.",
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        # --run-dir, because torchrun takes --run as an abbreviation of its own --run-path.
        "--run",
        "--run-dir",
        metavar="DIR",
        help="Run folder, by default a folder in runs/ named after data set, method, seed and "
        "settings.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Read = Annotated[
    Literal["cache", "shards"],
    typer.Option(help="Read the Zarr caches, or decode clips from the WebDataset shards."),
]
Keep = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Number of resume points to keep, in addition to the best and the last weights.",
    ),
]


def train_command(
    dataset: Dataset,
    presets: Presets = None,
    config_file: Config = None,
    assignments: Assignments = None,
    run: RunFolder = None,
    root: Root = Path("data"),
    device: Device = "auto",
    resume: Resume = False,
    workers: LoaderWorkers = 0,
    read: Read = "cache",
    save_every: SaveEvery = None,
    keep: Keep = 2,
    print_config: PrintConfig = False,
    cache_dir: CacheFolder = None,
    cache_limit: CacheLimit = None,
    plugins: Plugins = None,
    datasets: Datasets = None,
) -> None:
    """Train a network on a prepared data set.

    The run folder holds config.yaml (every setting), metrics.jsonl, checkpoints/, tensorboard/.
    A finished run is not trained again. With --resume, an interrupted run continues from its last
    resume point, and ends with the same curve and weights as a run without interruption. On
    SIGTERM, train saves a resume point and ends with exit code 75.

    For several GPUs or processes: torchrun --nproc-per-node=N -m avsnn train DATASET, with the
    same options (--run-dir in place of --run). The processes share out every batch.

    Settings for --set are the keys of config.yaml: model.method (s-cmrl, add, concat, audio,
    visual, weight-attention, sca, cmci, gated, cmqka, taaf, or a method of --plugin or
    of an installed package),
    model.channels, model.alpha, data.split, epochs, batch_size, seed, selection (val, test, last),
    optimizer.base_lr and so on.
    --print-config prints all settings.
    """
    from avsnn.cli.screen.console import say
    from avsnn.cli.screen.progress import make_progress
    from avsnn.cli.screen.training import print_settings, print_training
    from avsnn.datasets_manifest import load
    from avsnn.pipeline.experiments.presets import load_presets
    from avsnn.pipeline.inference.device import choose_device
    from avsnn.pipeline.runs.config import make_config, require_plugins_of, require_split
    from avsnn.pipeline.runs.plugin import load_plugins
    from avsnn.pipeline.runs.train_settings import TrainSettings
    from avsnn.pipeline.settings_overrides import build_settings
    from avsnn.pipeline.training.options import RunOptions
    from avsnn.pipeline.training.train import train

    load_plugins(plugins or ())
    if resume and run is not None:
        require_plugins_of(run)
    settings = build_settings(
        TrainSettings,
        load_presets(dataset, presets or (), config=config_file),
        assignments or (),
    )
    if print_config:
        require_split(load(dataset), settings)
        print_settings(settings)
        return
    options = RunOptions(
        device=choose_device(device),
        resume=resume,
        workers=workers,
        shards=read == "shards",
        save_every=save_every,
        keep=keep,
    )
    config = make_config(dataset, settings, root=root)
    folder = run or Path("runs") / config.folder_name
    progress = make_progress(lines=False)
    trained = train(config, folder=folder, options=options, progress=progress, say=say)
    print_training(trained, config, plugins=plugins or ())
