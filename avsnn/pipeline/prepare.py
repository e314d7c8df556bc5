"""discover → fetch → index → extract → featurize: from a name to caches that training reads."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from upath import UPath

from avsnn import __version__
from avsnn.datasets_manifest import Manifest, load
from avsnn.errors import RunError, UserError
from avsnn.pipeline.discover import (
    Discover,
    discovery,
    download_from_kaggle,
    find_folders,
)
from avsnn.pipeline.estimate import missing_bytes, room_for
from avsnn.pipeline.executor import Workers, start_workers
from avsnn.pipeline.extract import Extract, ExtractSettings
from avsnn.pipeline.featurize import AudioCache, AudioSettings, FrameCache, FrameSettings
from avsnn.pipeline.fetch import Fetch
from avsnn.pipeline.files import Folder, fingerprint, name_in, only_writer, write_if_changed
from avsnn.pipeline.index import Index, select
from avsnn.pipeline.journal import Counts, Failure, Summary
from avsnn.pipeline.seal import set_seal, unbroken_seal
from avsnn.pipeline.settings import Settings, flatten
from avsnn.pipeline.stage import NOTHING, Plan, Progress, Stage, plan, run_stage

S = TypeVar("S", bound=BaseModel)


class PrepareSettings(Settings):
    """Everything that changes what is prepared."""

    extract: ExtractSettings = ExtractSettings()
    frames: FrameSettings = FrameSettings()
    audio: AudioSettings = AudioSettings()
    limit: int | None = Field(default=None, ge=1, description="that many clips, evenly chosen")


class Request(BaseModel):
    """``request.json``: what the last prepare that was begun was asked for.

    Attributes:
        settings: what changes the outputs.
        source: the folder that files were taken from; None where they were downloaded or made.
        store: the URL that shards and caches went to; None where they are in the data set's folder.
        max_failures: share of a stage's inputs that may fail.
    """

    settings: PrepareSettings
    source: Path | None = None
    store: str | None = None
    max_failures: float = 0.01


def request(
    settings: PrepareSettings,
    *,
    source: Path | None,
    store: str | None,
    max_failures: float | None,
    last: Request | None,
) -> Request:
    """What is asked for now; failures that were accepted once stay accepted."""
    accepted = last.max_failures if last else Request.model_fields["max_failures"].default
    return Request(
        settings=settings,
        source=source and source.absolute(),
        store=store,
        max_failures=accepted if max_failures is None else max_failures,
    )


class Prepared(BaseModel):
    """``prepared.json``: what the last finished prepare left for training.

    ``shards``, ``frames`` and ``audio`` are named by their path below the data set's folder or
    their URL.
    """

    dataset: str
    settings: PrepareSettings
    fingerprint: str
    shards: str
    frames: str
    audio: str
    index: str
    clips: int
    failed: int
    bytes: int

    def as_text(self) -> str:
        """The file's content."""
        return self.model_dump_json(indent=1)


@dataclass(frozen=True)
class House:
    """The stages of one data set with one choice of settings, in the order data flow."""

    folder: Path
    manifest: Manifest
    request: Request
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


def build_stages(dataset: str, request: Request, *, root: Path) -> House:
    """Lays out the stages and their folders; touches nothing.

    The clips of a data set without a published table are those that were discovered so far.

    Raises:
        UserError: no such data set, the source folder does not exist or is another, or nothing here
            knows the kind of URL that the store has.
    """
    manifest, settings, source = load(dataset), request.settings, request.source
    if source is not None and not source.is_dir():
        raise UserError(f"--source {source} is not a folder; give the one that holds the files.")
    folder = root / dataset
    store = folder if request.store is None else _open_store(request.store) / dataset
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
        store / "shards" / shards,
        state,
        raw=fetch.folder,
        index=index.folder,
        visual=manifest.visual,
        chosen=settings.extract,
    )

    def cache(kind: type[FrameCache] | type[AudioCache], chosen: Settings) -> Folder:
        mark = fingerprint([kind.version, shards, chosen.model_dump()])[:8]
        return store / "cache" / f"{kind.name}-{mark}.zarr"

    return House(
        folder=folder,
        manifest=manifest,
        request=request,
        discover=discover,
        fetch=fetch,
        index=index,
        extract=extract,
        frames=FrameCache(
            cache(FrameCache, settings.frames), state, extract.folder, settings.frames
        ),
        audio=AudioCache(cache(AudioCache, settings.audio), state, extract.folder, settings.audio),
    )


def _open_store(url: str) -> UPath:
    try:
        store = UPath(url)
        store.fs  # noqa: B018 - makes the library that speaks to it load
    except (ImportError, ValueError) as error:
        raise UserError(f"--store {url} cannot be used: {error}.") from None
    if "://" not in url:
        raise UserError(f"--store {url} is no URL, such as s3://bucket/folder; --root takes paths.")
    return store


def build_as_requested(
    dataset: str, *, root: Path, source: Path | None = None, brings: bool = False
) -> House:
    """The stages as the last prepare was asked for.

    Args:
        dataset: its name.
        root: where data sets are kept.
        source: a folder that holds the files.
        brings: without one, files may be needed again from the folder that they came from.

    Raises:
        UserError: nothing was prepared there; otherwise as :func:`build_stages`.
    """
    request = load_request(root, dataset)
    if request is None:
        raise not_prepared(dataset, root)
    source = source or (request.source if brings else None)
    return build_stages(dataset, request.model_copy(update={"source": source}), root=root)


def prepared_before(
    dataset: str, request: Request, *, root: Path
) -> tuple[Prepared, list[Counts]] | None:
    """What a finished prepare left and its stages counted, where just that is asked for again.

    None where it is not known at a glance that there is nothing to do.

    Raises:
        UserError: no such data set, or another run is writing there.
    """
    folder = root / dataset
    if not (folder / "prepared.json").exists():
        return None
    with only_writer(folder):
        counts = unbroken_seal(folder, mark=_mark(load(dataset), request))
        prepared = load_prepared(root, dataset) if counts else None
    return (prepared, counts) if prepared and counts else None


def prepare(
    house: House,
    *,
    workers: int | None,
    scheduler: str | None = None,
    progress: Progress,
    retry_failed: bool = False,
    redo: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    on_stage: Callable[[Summary], None] = lambda _: None,
) -> Prepared:
    """Runs what is not done of the stages.

    Args:
        house: the stages.
        workers: processes that decode; None takes one per core, 0 works in this process.
        scheduler: a Dask cluster that decodes in their place; all its workers must see the folder
            and source of the data set under the same path.
        progress: told of every unit.
        retry_failed: try again what failed before.
        redo: units to do again in any case, ``{stage: {unit: reason}}``.
        on_stage: called as each stage ends.

    Raises:
        RunError: a stage failed, or more clips than allowed did.
        UserError: the disk is full or too small, another run writes here, or the cluster is not to
            be had.
    """
    # Left in reverse: first the downloads that wait for a server, then the threads they are in.
    with only_writer(house.folder), start_workers(workers, scheduler) as pools, house.fetch.web:
        summaries: list[Summary] = []

        def run(stage: Stage) -> Summary:
            summary = run_stage(
                stage,
                executor=_place(stage, pools),
                progress=progress,
                # Files may be in another place that were missing in the one before.
                retry_failed=retry_failed or (moved and isinstance(stage, Discover | Fetch)),
                redo=redo.get(stage.name, NOTHING),
            )
            summaries.append(summary)
            on_stage(summary)
            _require_few_failures(house, summary)
            return summary

        try:
            last = load_request(house.folder.parent, house.manifest.name)
            moved = last is not None and last.source != house.request.source is not None
            asked = house.request.model_dump_json(indent=1).encode()
            house = _with_source(house, retry_failed=retry_failed)
            if house.discover and run(house.discover).units_done_now:
                house = _laid_out_again(house, house.fetch.source)
            _require_space(house)
            write_if_changed(house.fetch.state / "request.json", asked)
            for stage in house.stages[len(summaries) :]:
                run(stage)
        finally:
            later = house.stages[len(summaries) :]
            known = [*summaries, *(plan(stage).recorded(stage) for stage in later)]
            write_if_changed(
                house.folder / "failures.jsonl", failure_lines(known, house.manifest.known_bad)
            )
        prepared = conclude(house, summaries)
        write_if_changed(house.folder / "prepared.json", prepared.as_text().encode())
        _seal(house, summaries)
        return prepared


def plan_stages(house: House, *, retry_failed: bool = False) -> list[tuple[Stage, Plan]]:
    """What is done and to do; later stages are planned from what earlier ones left so far."""
    return [(stage, plan(stage, retry_failed=retry_failed)) for stage in house.stages]


def changed_settings(house: House) -> list[str]:
    """What differs from the last prepare, one ``key was …, is …`` each; settings name folders."""
    last = load_request(house.folder.parent, house.manifest.name)
    now = flatten(house.request.settings)
    then = flatten(last.settings) if last else now
    return [f"{key} was {then[key]}, is {now[key]}" for key in now if then.get(key) != now[key]]


def not_prepared(dataset: str, root: Path) -> UserError:
    """What to say where something needs a prepared data set."""
    return UserError(
        f"{dataset} is not prepared in {root}; run 'avsnn prepare {dataset} --root {root}' first."
    )


def load_prepared(root: Path, dataset: str) -> Prepared | None:
    """What the last finished prepare left, or None.

    Raises:
        UserError: the file is damaged.
    """
    path = root / load(dataset).name / "prepared.json"
    return _read_file(Prepared, path, dataset) if path.exists() else None


def load_request(root: Path, dataset: str) -> Request | None:
    """What the last prepare that was begun was asked for, or None.

    Raises:
        UserError: the file is damaged.
    """
    path = root / load(dataset).name / "state" / "request.json"
    return _read_file(Request, path, dataset) if path.exists() else None


def _read_file(kind: type[S], path: Path, dataset: str) -> S:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(
            f"{path} is damaged; run 'avsnn prepare {dataset}' again, which writes it anew."
        ) from None


def _mark(manifest: Manifest, request: Request) -> str:
    """Changes with everything that a plan is made of, but for the files."""
    kinds = (Fetch, Index, Extract, FrameCache, AudioCache)
    return fingerprint(
        [
            __version__,
            [(kind.name, kind.version) for kind in kinds],
            manifest.model_dump(mode="json"),
            manifest.table and hashlib.sha256(manifest.table_bytes).hexdigest(),
            request.model_dump(mode="json"),
        ]
    )


def _seal(house: House, summaries: list[Summary]) -> None:
    """Not where a plan looks at more than that: at a store, or for files that were not there."""
    if house.discover or house.request.store:
        return
    written = {
        f"{name_in(house.folder, stage.folder)}/{output.path}": (output.size, output.mtime_ns)
        for stage, summary in zip(house.stages, summaries, strict=True)
        for output in summary.outputs
    }
    conclusions = (house.folder / name for name in ("prepared.json", "failures.jsonl"))
    journals = (stage.journal for stage in house.stages if stage.journal.exists())
    set_seal(
        house.folder,
        mark=_mark(house.manifest, house.request),
        stages=[replace(summary.counts, units_done_now=0, seconds=0.0) for summary in summaries],
        written=written,
        beside=[*conclusions, *journals],
    )


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
    request = house.request.model_copy(update={"source": source})
    return build_stages(house.manifest.name, request, root=house.folder.parent)


def _place(stage: Stage, pools: Workers) -> Any:
    light = isinstance(stage, Discover | Fetch | Index)
    return pools.threads if light else pools.processes


def _require_space(house: House) -> None:
    """Refuses early what would fill the disk."""
    needed = room_for(missing_bytes(house))
    free = shutil.disk_usage(house.folder).free
    if needed > free:
        raise UserError(
            f"{house.manifest.name}: about {needed / 1e9:.1f} GB are needed in {house.folder}, "
            f"{free / 1e9:.1f} GB are free. Free some space, or choose another --root or --limit."
        )


def _require_few_failures(house: House, summary: Summary) -> None:
    allowed = house.request.max_failures * summary.inputs
    if summary.failed <= allowed and (summary.written or not summary.inputs):
        return
    first = summary.failures[0] if summary.failures else None
    share = math.ceil(100 * summary.failed / summary.inputs) / 100
    reason = f"first: {first.path or first.key} {first.reason}" if first else "all were skipped"
    raise RunError(
        f"{house.manifest.name}: {summary.stage}: {summary.failed:,} of {summary.inputs:,} inputs "
        f"failed ({reason}). All reasons: {house.folder / 'failures.jsonl'}. Mend them and add "
        f"--retry-failed, or accept them with --max-failures {share:.2f}."
    )


def failure_lines(summaries: list[Summary], known_bad: Mapping[str, str]) -> bytes:
    """What ``failures.jsonl`` holds, in the order of the flow; what was known of a clip is said."""
    flow = [summary.stage for summary in summaries]
    rows = [failure for summary in summaries for failure in summary.failures]
    rows.sort(key=lambda failure: (flow.index(failure.stage), failure.key, failure.path))
    lines = (json.dumps(asdict(_with_history(failure, known_bad))) + "\n" for failure in rows)
    return "".join(lines).encode()


def _with_history(failure: Failure, known_bad: Mapping[str, str]) -> Failure:
    why = known_bad.get(failure.key)
    return replace(failure, reason=f"{failure.reason} (known to be bad: {why})") if why else failure


def conclude(house: House, summaries: list[Summary]) -> Prepared:
    """What ``prepared.json`` holds once every stage is done."""
    outputs = [
        (summary.stage, output.path, output.sha256)
        for summary in summaries
        if summary.stage in (house.frames.name, house.audio.name)
        for output in summary.outputs
    ]
    return Prepared(
        dataset=house.manifest.name,
        settings=house.request.settings,
        fingerprint=fingerprint(sorted(outputs)),
        shards=name_in(house.folder, house.extract.folder),
        frames=name_in(house.folder, house.frames.folder),
        audio=name_in(house.folder, house.audio.folder),
        index=str(house.index.folder.relative_to(house.folder)),
        clips=summaries[-1].written,
        failed=sum(summary.failed for summary in summaries),
        bytes=sum(summary.bytes for summary in summaries),
    )
