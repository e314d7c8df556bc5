"""The commands `prepare`, `verify` and `repair`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsnn.cli.options import (
    AsJson,
    Assignments,
    Dataset,
    Datasets,
    PrepareWorkers,
    ReaderPlugins,
    Root,
    Source,
    Yes,
)
from avsnn.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from avsnn.pipeline.engine.journal import StageCounts
    from avsnn.pipeline.formats.prepared_json import Prepared
    from avsnn.pipeline.prepare.build_stages import DatasetStages

Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Prepare only N clips, chosen so that parts and classes keep their proportions.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Address of a running Dask cluster that decodes the clips, such as tcp://host:8786 "
        "(docs/cluster.md).",
    ),
]


def _require_lasting_store(url: str | None) -> str | None:
    """Refuse a store in the memory of this process, and a chain of stores such as ``a::b``."""
    kind, _, _ = (url or "").partition("://")
    if kind == "memory":
        raise UserError(
            f"--store {url} is in the memory of this command and would be gone at its end; give a "
            "store that stays, such as s3://bucket/folder."
        )
    if "::" in kind:
        raise UserError(
            f"--store {url} is a chain of stores; give one URL, such as s3://bucket/folder."
        )
    return url


Store = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        callback=_require_lasting_store,
        help="Store for shards and caches, such as s3://bucket/folder; by default the store of the "
        "last prepare, or the folder of the data set. 'none' is the folder of the data set.",
    ),
]
MaxFailures = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Largest share of a stage's inputs that may fail, by default the share given to the "
        "last prepare, or 0.1 for files of your own and 0.01 for published files.",
    ),
]
Link = Annotated[
    bool | None,
    typer.Option(
        "--link/--copy",
        help="Link to the files of --source, which takes no room on the disk, or copy the files. "
        "By default as in the last prepare; the first prepare copies, unless 'take' in the YAML "
        "of your own data set says otherwise.",
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try failed files and clips again.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain", help="Print the plan and why each unit has to be done, and do nothing."
    ),
]


def prepare_command(
    dataset: Dataset,
    root: Root = Path("data"),
    source: Source = None,
    link: Link = None,
    limit: Limit = None,
    workers: PrepareWorkers = None,
    scheduler: Scheduler = None,
    store: Store = None,
    assignments: Assignments = None,
    plugins: ReaderPlugins = None,
    max_failures: MaxFailures = None,
    retry_failed: RetryFailed = False,
    dry_run: DryRun = False,
    explain: Explain = False,
    datasets: Datasets = None,
) -> None:
    """Fetch a data set, decode the clips into shards, compute the caches that training reads.

    prepare checks files against published checksums. If a clip cannot be used, prepare lists the
    clip and the reason in failures.jsonl, in the data set's folder, and continues with other clips.

    Settings for --set: extract.frames (1fps or a number), extract.jpeg_quality,
    extract.clips_per_shard, extract.shard_bytes, frames.shorter_side, audio.kind (log-stft or
    log-mel), audio.n_mels, audio.sample_rate, audio.n_fft, audio.hop, audio.size, audio.noise_snr
    (dB).
    """
    from avsnn.cli.screen.console import say
    from avsnn.cli.screen.prepare import print_prepared, print_stage_counts
    from avsnn.cli.screen.progress import make_progress
    from avsnn.pipeline.formats.prepare_settings import PrepareSettings
    from avsnn.pipeline.media.readers import sources_of_files
    from avsnn.pipeline.prepare.build_stages import build_stages
    from avsnn.pipeline.prepare.finished_snapshot import finished_before
    from avsnn.pipeline.prepare.prepare import prepare
    from avsnn.pipeline.prepare.request import last_request, make_request
    from avsnn.pipeline.settings_overrides import build_settings

    settings = build_settings(PrepareSettings, [{"limit": limit}], assignments or ())
    if scheduler is not None:
        # The workers of a cluster run in other folders.
        root = root.absolute()
    last = last_request(root, dataset)
    asked = make_request(
        dataset,
        settings,
        source=source,
        store=store,
        max_failures=max_failures,
        link=link,
        last=last,
        readers=sources_of_files(plugins or ()),
    )
    if dry_run or explain:
        stages = build_stages(dataset, asked, root=root)
        _print_plan(stages, workers=workers, retry_failed=retry_failed, explain=explain)
        return
    before = None if retry_failed else finished_before(dataset, asked, root=root)
    if before is not None:
        prepared, counts = before
        print_stage_counts(dataset, counts)
        print_prepared(root / dataset, prepared, counts)
        return
    stages = build_stages(dataset, asked, root=root)
    run = partial(
        prepare,
        stages,
        workers=workers,
        scheduler=scheduler,
        progress=make_progress(),
        retry_failed=retry_failed,
        say=say,
    )
    _run_and_print(run, stages)


def _print_plan(
    stages: "DatasetStages", *, workers: int | None, retry_failed: bool, explain: bool
) -> None:
    from avsnn.cli.screen.prepare import print_plan, print_reasons
    from avsnn.pipeline.prepare.estimate import estimate
    from avsnn.pipeline.prepare.prepare import changed_settings, plan_stages

    planned = plan_stages(stages, retry_failed=retry_failed)
    print_plan(stages, planned, estimate(stages, workers=workers))
    if explain:
        print_reasons(changed_settings(stages), planned)


def _run_and_print(run: "Callable[..., Prepared]", stages: "DatasetStages") -> None:
    """Run `prepare` or `repair`, and print the stages that ended, even if a later stage fails."""
    from avsnn.cli.screen.prepare import print_prepared, print_stage_counts

    counts: list[StageCounts] = []
    try:
        prepared = run(on_stage=lambda summary: counts.append(summary.counts))
    finally:
        print_stage_counts(stages.manifest.name, counts)
    print_prepared(stages.folder, prepared, counts)


def verify_command(
    dataset: Dataset,
    root: Root = Path("data"),
    as_json: AsJson = False,
    datasets: Datasets = None,
) -> None:
    """Read every prepared file again and compare the file with the record of its content.

    verify finds changed bytes, cut and missing files, units that are unfinished or were made with
    other settings, and files that a killed run left behind. If verify finds any damage, the exit
    code is 1, and 'avsnn repair' repairs the damage. --json names stage, unit, file, kind of damage
    and what to do, and nothing else reaches standard output.
    """
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.prepare import print_damage
    from avsnn.cli.screen.progress import make_progress
    from avsnn.pipeline.prepare.build_stages import build_as_requested
    from avsnn.pipeline.prepare.verify import describe, require_undamaged, verify

    stages = build_as_requested(dataset, root=root)
    verification = verify(stages, progress=make_progress())
    if as_json:
        print_json(describe(stages, verification))
    else:
        print_damage(dataset, verification)
    require_undamaged(stages, verification)


def repair_command(
    dataset: Dataset,
    root: Root = Path("data"),
    source: Source = None,
    workers: PrepareWorkers = None,
    plugins: ReaderPlugins = None,
    yes: Yes = False,
    datasets: Datasets = None,
) -> None:
    """Verify a data set, and make exactly the damaged files again, with the same bytes.

    repair takes damaged raw files from the same place as 'avsnn prepare' did, or from --source.
    repair asks before it deletes files that avsnn did not write. In a script, such files stay,
    unless --yes is given.
    """
    from avsnn.cli.screen.console import can_ask, confirm, out
    from avsnn.cli.screen.prepare import print_damage, print_unknown_files
    from avsnn.cli.screen.progress import make_progress
    from avsnn.pipeline.media.readers import sources_of_files
    from avsnn.pipeline.prepare.build_stages import build_as_requested
    from avsnn.pipeline.prepare.repair import repair
    from avsnn.pipeline.prepare.verify import verify

    readers = sources_of_files(plugins or ())
    stages = build_as_requested(
        dataset, root=root, source=source, brings_files=True, readers=readers
    )
    verification = verify(stages, progress=make_progress())
    print_damage(dataset, verification)
    if not verification.damages:
        return
    unknown = verification.unknown
    if unknown:
        print_unknown_files(dataset, stages.folder, unknown)
        yes = yes or (can_ask() and confirm("Delete these files?"))
    run = partial(
        repair,
        stages,
        verification,
        delete_unknown=yes,
        workers=workers,
        progress=make_progress(),
    )
    _run_and_print(run, stages)
    if unknown and not yes:
        out.print(f"{dataset}: the files that avsnn did not write stay; --yes deletes the files.")
