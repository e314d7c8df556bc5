"""The ``avsnn`` command. Heavy imports stay inside commands, so that help is instant."""

import gc
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from avsnn.errors import PreemptedError, RunError, UserError

if TYPE_CHECKING:
    from avsnn.pipeline.engine.journal import StageCounts

# What Typer makes of Ctrl-C.
INTERRUPTED = 130
# EX_TEMPFAIL: what asks a cluster to try again.
PREEMPTED = 75

EPILOG = """
**A first run:** `avsnn prepare demo`, then `avsnn train demo`, then `avsnn evaluate` with the run
folder that train names.

**Files:** `data/DATASET/` holds a data set (raw files, shards, caches, failures.jsonl), `runs/`
one folder per training (config.yaml, metrics.jsonl, checkpoints, tensorboard, report).

**Again and again:** every command can be killed at any time and run again; it goes on where it was
and does nothing where nothing is left to do.

**Exit codes:** 0 done, 1 the work failed, 2 bad input, 75 told to end (SIGTERM) and saved, 130
interrupted.
"""

app = typer.Typer(
    help="Train audio-visual spiking neural networks: data sets in, measured models out.",
    epilog=EPILOG,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Dataset = Annotated[str, typer.Argument(help="Its name; 'avsnn datasets' lists all.")]
Root = Annotated[Path, typer.Option(metavar="DIR", help="Where data sets are kept.")]
Source = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="A folder that holds the files as published; no download."),
]
WorkerCount = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, help="Worker processes; else one per core. 0 works in this process."
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated."),
]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
LoaderCount = Annotated[
    int, typer.Option("--workers", min=0, help="Processes that read batches; 0 reads in a thread.")
]
SaveEvery = Annotated[
    int | None,
    typer.Option(
        "--save-every", min=1, metavar="STEPS", help="Save within epochs too, not only after each."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _version(wanted: bool) -> None:
    if wanted:
        from avsnn import __version__

        typer.echo(f"avsnn {__version__}")
        raise typer.Exit


@app.callback()
def _avsnn(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def prepare(
    dataset: Dataset,
    root: Root = Path("data"),
    source: Source = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Only N clips, with the proportions of parts and classes kept."),
    ] = None,
    workers: WorkerCount = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A running Dask cluster to work on, such as tcp://host:8786 (docs/cluster.md).",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where shards and caches go, such as s3://bucket/folder; else DIR/DATASET.",
        ),
    ] = None,
    assignments: Assignments = None,
    max_failures: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of a stage's inputs that may fail: 0.01, or what the last prepare said.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="The same, and why each unit has to be done.")
    ] = False,
) -> None:
    """Bring a data set, decode it into shards, compute the caches that training reads.

    Files are checked against published checksums. A clip that cannot be used is written to
    DIR/DATASET/failures.jsonl with its reason, and the rest goes on.

    Settings for --set: extract.frames (1fps or a number), extract.jpeg_quality,
    extract.clips_per_shard, frames.shorter_side, audio.kind (log-stft or log-mel), audio.n_mels,
    audio.sample_rate, audio.n_fft, audio.hop, audio.size, audio.noise_snr (dB).
    """
    from avsnn.cli import show
    from avsnn.pipeline.formats.prepare_settings import PrepareSettings
    from avsnn.pipeline.prepare.build import build_stages
    from avsnn.pipeline.prepare.estimate import estimate
    from avsnn.pipeline.prepare.prepare import changed_settings, plan_stages
    from avsnn.pipeline.prepare.prepare import prepare as run_prepare
    from avsnn.pipeline.prepare.request import load_request, make_request
    from avsnn.pipeline.prepare.snapshot import finished_before
    from avsnn.pipeline.settings_builder import build_settings

    settings = build_settings(PrepareSettings, [{"limit": limit}], assignments or ())
    request = make_request(
        settings,
        source=source,
        store=store,
        max_failures=max_failures,
        last=load_request(root, dataset),
    )
    if not (dry_run or explain or retry_failed):
        before = finished_before(dataset, request, root=root)
        if before is not None:
            show.summaries(dataset, before[1])
            show.prepared(root / dataset, *before)
            return
    stages = build_stages(dataset, request, root=root)
    if dry_run or explain:
        planned = plan_stages(stages, retry_failed=retry_failed)
        show.plan(stages, planned, estimate(stages, planned, workers=workers))
        if explain:
            show.reasons(changed_settings(stages), planned)
        return
    counts: list[StageCounts] = []
    try:
        prepared = run_prepare(
            stages,
            workers=workers,
            scheduler=scheduler,
            progress=show.progress(),
            retry_failed=retry_failed,
            on_stage=lambda summary: counts.append(summary.counts),
        )
    finally:
        show.summaries(dataset, counts)
    show.prepared(stages.folder, prepared, counts)


@app.command()
def verify(
    dataset: Dataset,
    root: Root = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Read every prepared file again and compare it with what was written.

    Finds flipped bits, cut or missing files, units that were never finished or were made with
    other settings, and what a killed run left over. Exit code 1 where there is any of it; 'avsnn
    repair' mends it.
    """
    from avsnn.cli import show
    from avsnn.pipeline.prepare.build import build_as_requested
    from avsnn.pipeline.prepare.verify import require_undamaged
    from avsnn.pipeline.prepare.verify import verify as run_verify

    stages = build_as_requested(dataset, root=root)
    verification = run_verify(stages, progress=show.progress())
    if as_json:
        show.as_json(asdict(verification))
    else:
        show.verification(stages, verification)
    require_undamaged(stages, verification)


@app.command()
def repair(
    dataset: Dataset,
    root: Root = Path("data"),
    source: Source = None,
    workers: WorkerCount = None,
) -> None:
    """Verify, and make again exactly what is damaged, to the same bytes.

    Files that have to be brought again come from where 'avsnn prepare' took them.
    """
    from avsnn.cli import show
    from avsnn.pipeline.prepare.build import build_as_requested
    from avsnn.pipeline.prepare.repair import repair as run_repair
    from avsnn.pipeline.prepare.verify import verify as run_verify

    stages = build_as_requested(dataset, root=root, source=source, brings_files=True)
    verification = run_verify(stages, progress=show.progress())
    show.verification(stages, verification)
    if not verification.damages:
        return
    counts: list[StageCounts] = []
    try:
        prepared = run_repair(
            stages,
            verification,
            workers=workers,
            progress=show.progress(),
            on_stage=lambda summary: counts.append(summary.counts),
        )
    finally:
        show.summaries(dataset, counts)
    show.prepared(stages.folder, prepared, counts)


@app.command()
def train(
    dataset: Dataset,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Settings over those of the data set, such as 'healthy'; may be repeated.",
        ),
    ] = None,
    assignments: Assignments = None,
    run: Annotated[
        Path | None,
        typer.Option(
            # torchrun takes --run for one of its own.
            "--run",
            "--run-dir",
            metavar="DIR",
            help="Run folder; else one in runs/, named after data set, method, seed and settings.",
        ),
    ] = None,
    root: Root = Path("data"),
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut off.")
    ] = False,
    workers: LoaderCount = 0,
    read: Annotated[
        Literal["cache", "shards"],
        typer.Option(help="Read the Zarr caches, or decode from the WebDataset shards."),
    ] = "cache",
    save_every: SaveEvery = None,
    keep: Annotated[
        int, typer.Option(min=1, help="Resume points to keep, beside best and last weights.")
    ] = 2,
) -> None:
    """Train a network on a prepared data set.

    The run folder holds config.yaml (every setting), metrics.jsonl, checkpoints/, tensorboard/.
    A run that is finished is left alone; one that was cut off goes on with --resume, at any step,
    with the same curve and weights. SIGTERM saves and ends with exit code 75.

    Several GPUs or processes: torchrun --nproc-per-node=N -m avsnn train DATASET, with the same
    words (--run-dir in place of --run); a batch is shared out among them.

    Settings for --set are those in config.yaml: model.method (s-cmrl, add, concat, audio, visual,
    weight-attention, sca, cmci), model.channels, model.alpha, data.split, epochs, batch_size,
    seed, selection (val, test, last), optimizer.base_lr and so on.
    """
    from avsnn.cli import show
    from avsnn.pipeline.experiments.presets import load_presets
    from avsnn.pipeline.inference.device import choose_device
    from avsnn.pipeline.runs.config import make_config
    from avsnn.pipeline.runs.train_settings import TrainSettings
    from avsnn.pipeline.settings_builder import build_settings
    from avsnn.pipeline.training.options import RunOptions
    from avsnn.pipeline.training.train import train as run_train

    where = choose_device(device)
    settings = build_settings(TrainSettings, load_presets(dataset, preset or ()), assignments or ())
    config = make_config(dataset, settings, root=root)
    trained = run_train(
        config,
        folder=run or Path("runs") / config.folder_name,
        options=RunOptions(
            device=where,
            resume=resume,
            workers=workers,
            shards=read == "shards",
            save_every=save_every,
            keep=keep,
        ),
        progress=show.progress(lines=False),
        say=show.say,
    )
    show.trained(trained, config)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder of 'avsnn train'.")],
    split: Annotated[
        Literal["train", "val", "test"], typer.Option(help="Which part of the split to measure on.")
    ] = "test",
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the data are, if they moved.")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure the best checkpoint of a run, and draw its report.

    Top-1, top-5, loss, per-class precision, recall and F1, confusion matrix: on screen, in
    RUN/report/PART.json, and as pictures in RUN/report/index.html.
    """
    from avsnn.cli import show
    from avsnn.pipeline.evaluation.evaluate import evaluate as measure
    from avsnn.pipeline.evaluation.report import write_report
    from avsnn.pipeline.inference.device import choose_device

    result, again = measure(
        run, part=split, root=root, device=choose_device(device), progress=show.progress()
    )
    page = write_report(run)
    if as_json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        show.evaluation(result, again=again, page=page)


@app.command()
def reproduce(
    table: Annotated[
        str,
        typer.Argument(help="methods, attention, alpha, temperature or snr."),
    ],
    dataset: Annotated[str, typer.Option(metavar="NAME", help="What to train on.")] = "crema-d",
    seeds: Annotated[
        str, typer.Option(metavar="N,N,…", help="One run each for every row.")
    ] = "42,47,1024",
    assignments: Assignments = None,
    root: Root = Path("data"),
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Where run folders are.")] = Path(
        "runs"
    ),
    device: Device = "auto",
    workers: LoaderCount = 0,
    save_every: SaveEvery = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, and do nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train and evaluate a published table, and print it beside the published figures.

    Every row is a preset, run with every seed: what is done is skipped, what was cut goes on, what
    is missing is run. --set changes a setting of all rows, such as epochs or selection=test, as
    published. The table is written after every run to RUNS/tables, as Markdown and as JSON.
    """
    from avsnn.cli import show
    from avsnn.pipeline.experiments import reproduce as tables
    from avsnn.pipeline.inference.device import choose_device
    from avsnn.pipeline.training.options import RunOptions

    words = assignments or []
    experiments = tables.plan_table(
        table,
        dataset=dataset,
        seeds=tables.parse_seeds(seeds),
        assignments=words,
        root=root,
        runs=runs,
    )
    found = tables.summarise(table, experiments, words)
    into = runs / "tables"
    if not dry_run:
        found = tables.reproduce(
            table,
            experiments,
            assignments=words,
            options=RunOptions(
                device=choose_device(device), workers=workers, save_every=save_every
            ),
            into=into,
            progress=show.progress(lines=False),
            say=show.say,
        )
    if as_json:
        show.as_json(found.model_dump())
    else:
        show.reproduction(found, None if dry_run else into)


datasets_app = typer.Typer()
app.add_typer(datasets_app, name="datasets")


@datasets_app.callback(invoke_without_command=True)
def datasets(context: typer.Context, root: Root = Path("data"), as_json: AsJson = False) -> None:
    """List the data sets: licence, size, clips, classes, splits, and what is prepared here."""
    if context.invoked_subcommand:
        # Options may stand before the word or after it.
        context.default_map = {context.invoked_subcommand: {"root": root, "as_json": as_json}}
        return
    from avsnn.cli import show
    from avsnn.pipeline.listing import list_datasets

    found = list_datasets(root)
    if as_json:
        show.as_json(found)
    else:
        show.datasets(found)


@datasets_app.command()
def check(
    dataset: Dataset,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="A split of it; else its default.")
    ] = None,
    root: Root = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Count what the parts of a split share: speakers or recordings, and identical files.

    Clips per part and class, groups on both sides, clips with a twin or a byte-identical file on
    the other side, known bad clips; by the manifest, and by what is prepared here.
    """
    from avsnn.cli import show
    from avsnn.pipeline.prepare.split_check import check_split

    found = check_split(dataset, split, root=root)
    if as_json:
        show.as_json(asdict(found))
    else:
        show.checked(found)


@app.command()
def status(
    root: Root = Path("data"),
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Where run folders are.")] = Path(
        "runs"
    ),
    as_json: AsJson = False,
) -> None:
    """Show what is done here: stages with sizes and failures, and runs with their epochs."""
    from avsnn.cli import show
    from avsnn.pipeline.listing import list_runs, list_stages

    stages, trainings = list_stages(root), list_runs(runs)
    if as_json:
        show.as_json({"stages": stages, "runs": trainings})
    else:
        show.status(stages, trainings)


@app.command()
def convert_checkpoint(
    file: Annotated[Path, typer.Argument(help="A .pth.tar or a bare state dict.")],
    out: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    assignments: Assignments = None,
) -> None:
    """Turn a checkpoint of the authors' code into one of ours.

    Method, width C, classes and thresholds follow from the weights. What does not is said with
    --set: steps (T, 4), heads (16), alpha (1.5), and where the weights fit more than one network,
    method or attention.
    """
    from avsnn.cli import show
    from avsnn.pipeline.runs.convert_checkpoint import ConvertSettings
    from avsnn.pipeline.runs.convert_checkpoint import convert_checkpoint as convert
    from avsnn.pipeline.settings_builder import build_settings

    settings = build_settings(ConvertSettings, (), assignments or ())
    show.converted(convert(file, out, settings), out)


def main() -> None:
    """Runs the command line; every foreseen end is one sentence and an exit code."""
    # A finished data set is told by some 100,000 records; by default a fifth of the time of finding
    # nothing to do goes into looking for cycles among them.
    gc.set_threshold(50_000)
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except typer.TyperException as error:
        _end(error.format_message(), 2)
    except UserError as error:
        _end(str(error), 2)
    except RunError as error:
        _end(str(error), 1)
    except PreemptedError as error:
        _end(str(error), PREEMPTED)
    if code == INTERRUPTED:
        _end(
            "interrupted; what is done is safe. Run it again (train: with --resume) to go on.", code
        )
    sys.exit(code if isinstance(code, int) else 0)


def _end(message: str, code: int) -> NoReturn:
    from avsnn.cli import show

    # Of several processes that find the same, one says so.
    if not show.is_follower():
        typer.echo(f"avsnn: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
