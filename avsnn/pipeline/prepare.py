"""discover → fetch → index → extract → featurize: from a name to caches that training reads."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from avsnn.datasets_manifest import Manifest, load
from avsnn.errors import RunError, UserError
from avsnn.pipeline.discover import (
    Discover,
    discovery,
    download_from_kaggle,
    find_folders,
)
from avsnn.pipeline.executor import Workers, start_workers
from avsnn.pipeline.extract import Extract, ExtractSettings
from avsnn.pipeline.featurize import AudioCache, AudioSettings, FrameCache, FrameSettings
from avsnn.pipeline.fetch import Fetch
from avsnn.pipeline.index import Index, select
from avsnn.pipeline.settings import Settings
from avsnn.pipeline.stage import (
    Failure,
    Plan,
    Progress,
    Stage,
    Summary,
    fingerprint,
    only_writer,
    plan,
    records,
    run_stage,
    write_if_changed,
)


class PrepareSettings(Settings):
    """Everything that changes what is prepared."""

    extract: ExtractSettings = ExtractSettings()
    frames: FrameSettings = FrameSettings()
    audio: AudioSettings = AudioSettings()
    limit: int | None = Field(default=None, ge=1, description="that many clips, evenly chosen")


class Prepared(BaseModel):
    """``prepared.json``: what the last finished prepare left for training."""

    dataset: str
    settings: PrepareSettings
    fingerprint: str
    frames: str
    audio: str
    index: str
    clips: int
    failed: int
    bytes: int


@dataclass(frozen=True)
class House:
    """The stages of one data set with one choice of settings, in the order data flow."""

    folder: Path
    manifest: Manifest
    settings: PrepareSettings
    discover: Discover | None
    fetch: Fetch
    index: Index
    extract: Extract
    frames: FrameCache
    audio: AudioCache

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All of them; a table that was published need not be discovered."""
        first = (self.discover,) if self.discover else ()
        return (*first, self.fetch, self.index, self.extract, self.frames, self.audio)


def build_stages(
    dataset: str, settings: PrepareSettings, *, root: Path, source: Path | None = None
) -> House:
    """Lays out the stages and their folders; touches nothing.

    The clips of a data set without a published table are those that were discovered so far.

    Raises:
        UserError: no such data set, or the source folder does not exist or is another.
    """
    manifest = load(dataset)
    if source is not None and not source.is_dir():
        raise UserError(f"--source {source} is not a folder; give the one that holds the files.")
    folder = root / dataset
    state = folder / "state"
    if manifest.layout is not None and source is not None:
        source = find_folders(manifest.layout, source)
    discover = discovery(manifest, folder, source)
    if discover:
        manifest = discover.found()
    clips = select(manifest, settings.limit)
    # As dataclasses.asdict would say it, which takes ten times as long.
    table = fingerprint(
        [{**vars(clip), "audio": vars(clip.audio), "visual": vars(clip.visual)} for clip in clips]
    )
    fetch = Fetch(folder / "raw", state, manifest, clips, source)
    index = Index(folder / "index", state, manifest, fetch)
    rules = [Extract.version, table, index.settings()]
    shards = fingerprint([*rules, settings.extract.model_dump()])[:8]
    extract = Extract(
        folder / "shards" / shards,
        state,
        raw=fetch.folder,
        index=index.folder,
        visual=manifest.visual,
        chosen=settings.extract,
    )

    def cache(kind: type[FrameCache] | type[AudioCache], chosen: Settings) -> Path:
        mark = fingerprint([kind.version, shards, chosen.model_dump()])[:8]
        return folder / "cache" / f"{kind.name}-{mark}.zarr"

    return House(
        folder=folder,
        manifest=manifest,
        settings=settings,
        discover=discover,
        fetch=fetch,
        index=index,
        extract=extract,
        frames=FrameCache(
            cache(FrameCache, settings.frames), state, extract.folder, settings.frames
        ),
        audio=AudioCache(cache(AudioCache, settings.audio), state, extract.folder, settings.audio),
    )


def prepare(
    house: House,
    *,
    workers: int | None,
    progress: Progress,
    max_failures: float = 0.01,
    retry_failed: bool = False,
    on_stage: Callable[[Summary], None] = lambda _: None,
) -> Prepared:
    """Runs what is not done of the stages.

    Args:
        house: the stages.
        workers: processes that decode; None takes one per core, 0 works in this process.
        progress: told of every unit.
        max_failures: share of a stage's inputs that may fail before the run ends.
        retry_failed: try again what failed before.
        on_stage: called as each stage ends.

    Raises:
        RunError: a stage failed, or more clips than allowed did.
        UserError: the disk is full or too small, or another run writes here.
    """
    with only_writer(house.folder), start_workers(workers) as pools:
        summaries: list[Summary] = []

        def run(stage: Stage) -> Summary:
            summary = run_stage(
                stage,
                executor=_place(stage, pools),
                progress=progress,
                retry_failed=retry_failed,
            )
            summaries.append(summary)
            on_stage(summary)
            _require_few_failures(house, summary, max_failures)
            return summary

        try:
            house = _with_source(house, retry_failed=retry_failed)
            if house.discover and run(house.discover).units_done_now:
                house = _laid_out_again(house, house.fetch.source)
            _require_space(house)
            request = house.settings.model_dump_json(indent=1).encode()
            write_if_changed(house.fetch.state / "request.json", request)
            for stage in house.stages[len(summaries) :]:
                run(stage)
        finally:
            _write_failures(house, summaries)
        return _conclude(house, summaries)


def plan_stages(house: House, *, retry_failed: bool = False) -> list[tuple[Stage, Plan]]:
    """What is done and to do; later stages are planned from what earlier ones left so far."""
    return [(stage, plan(stage, retry_failed=retry_failed)) for stage in house.stages]


def missing_bytes(house: House) -> int:
    """Bytes that fetch has yet to bring, as far as the manifest knows sizes."""
    brought = records(house.fetch)
    return sum(
        file.size or 0
        for clip in house.fetch.clips
        for file in clip.files
        if file.path not in brought
    )


def load_prepared(root: Path, dataset: str) -> Prepared | None:
    """What the last finished prepare left, or None."""
    path = root / load(dataset).name / "prepared.json"
    return Prepared.model_validate_json(path.read_bytes()) if path.exists() else None


def load_request(root: Path, dataset: str) -> PrepareSettings | None:
    """The settings of the last prepare that was begun, or None."""
    path = root / load(dataset).name / "state" / "request.json"
    return PrepareSettings.model_validate_json(path.read_bytes()) if path.exists() else None


def _with_source(house: House, *, retry_failed: bool) -> House:
    """The same stages, with the folder that Kaggle's files are in where they are needed."""
    handle = house.manifest.kaggle
    if handle is None or house.fetch.source is not None:
        return house
    stages = [stage for stage in (house.discover, house.fetch) if stage]
    if not any(plan(stage, retry_failed=retry_failed).todo for stage in stages):
        return house
    return _laid_out_again(house, download_from_kaggle(handle))


def _laid_out_again(house: House, source: Path | None) -> House:
    root = house.folder.parent
    return build_stages(house.manifest.name, house.settings, root=root, source=source)


def _place(stage: Stage, pools: Workers) -> Any:
    light = isinstance(stage, Discover | Fetch | Index)
    return pools.threads if light else pools.processes


def _require_space(house: House) -> None:
    """Refuses early what would fill the disk: the files, and about as much again twice over."""
    needed = 3 * missing_bytes(house)
    free = shutil.disk_usage(house.folder).free
    if needed > free:
        raise UserError(
            f"{house.manifest.name}: about {needed / 1e9:.1f} GB are needed in {house.folder}, "
            f"{free / 1e9:.1f} GB are free. Free some space, or choose another --root or --limit."
        )


def _require_few_failures(house: House, summary: Summary, max_failures: float) -> None:
    if summary.failed <= max_failures * summary.inputs and (summary.written or not summary.inputs):
        return
    first = summary.failures[0] if summary.failures else None
    reason = f"first: {first.path or first.key} {first.reason}" if first else "all were skipped"
    raise RunError(
        f"{house.manifest.name}: {summary.stage}: {summary.failed:,} of {summary.inputs:,} inputs "
        f"failed ({reason}). All reasons: {house.folder / 'failures.jsonl'}. Mend them and add "
        "--retry-failed, or accept them with --max-failures."
    )


def _write_failures(house: House, summaries: list[Summary]) -> None:
    """``failures.jsonl``: of every stage, also of those that this run did not come to."""
    rows = [failure for summary in summaries for failure in summary.failures]
    for stage in house.stages[len(summaries) :]:
        rows += [failure for record in records(stage).values() for failure in record.failures]
    flow = [stage.name for stage in house.stages]
    rows.sort(key=lambda failure: (flow.index(failure.stage), failure.key, failure.path))
    known = house.manifest.known_bad
    lines = [json.dumps(asdict(_with_history(failure, known))) + "\n" for failure in rows]
    write_if_changed(house.folder / "failures.jsonl", "".join(lines).encode())


def _with_history(failure: Failure, known_bad: dict[str, str]) -> Failure:
    why = known_bad.get(failure.key)
    return replace(failure, reason=f"{failure.reason} (known to be bad: {why})") if why else failure


def _conclude(house: House, summaries: list[Summary]) -> Prepared:
    outputs = [
        (stage.name, output.path, output.sha256)
        for stage in (house.frames, house.audio)
        for record in records(stage).values()
        for output in record.outputs
    ]
    prepared = Prepared(
        dataset=house.manifest.name,
        settings=house.settings,
        fingerprint=fingerprint(sorted(outputs)),
        frames=str(house.frames.folder.relative_to(house.folder)),
        audio=str(house.audio.folder.relative_to(house.folder)),
        index=str(house.index.folder.relative_to(house.folder)),
        clips=summaries[-1].written,
        failed=sum(summary.failed for summary in summaries),
        bytes=sum(summary.bytes for summary in summaries),
    )
    write_if_changed(house.folder / "prepared.json", prepared.model_dump_json(indent=1).encode())
    return prepared
