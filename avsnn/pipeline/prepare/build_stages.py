"""The stages of a data set, built from its manifest and a request."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from avsnn.datasets_manifest import Manifest, load
from avsnn.datasets_manifest.clip_table import ClipTable
from avsnn.errors import UserError
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.stage import Stage
from avsnn.pipeline.engine.stores import open_store
from avsnn.pipeline.formats.prepared_json import not_prepared_error
from avsnn.pipeline.media.readers import ReaderSource
from avsnn.pipeline.prepare.chosen_readers import with_code
from avsnn.pipeline.prepare.folder_layout import find_layout_folder
from avsnn.pipeline.prepare.generations import generation_name
from avsnn.pipeline.prepare.request import PrepareRequest, load_request
from avsnn.pipeline.prepare.splits import select
from avsnn.pipeline.prepare.stages.cache import Cache
from avsnn.pipeline.prepare.stages.discover import Discover
from avsnn.pipeline.prepare.stages.extract import Extract
from avsnn.pipeline.prepare.stages.featurize import AudioCache, FrameCache
from avsnn.pipeline.prepare.stages.featurize_events import EventAudioCache, EventFrameCache
from avsnn.pipeline.prepare.stages.fetch import Fetch
from avsnn.pipeline.prepare.stages.index import Index, describe_clips, identity_of_splits
from avsnn.pipeline.prepare.stages.pair import Pair
from avsnn.pipeline.prepare.written_table import require_undamaged_table
from avsnn.pydantic_base import StrictModel


@dataclass(frozen=True)
class DatasetStages:
    """The stages of one data set for one request.

    Attributes:
        folder: the folder of the data set.
        manifest: the facts about the data set, with its clips.
        request: what was asked for.
        table: the stage that writes the table of clips; None where the table was published.
    """

    folder: Path
    manifest: Manifest
    request: PrepareRequest
    table: Discover | Pair | None
    fetch: Fetch
    index: Index
    extract: Extract
    frames: Cache
    audio: Cache

    @property
    def in_order(self) -> tuple[Stage, ...]:
        """All stages, in the order in which the data flow."""
        return (*self.before_index, self.index, self.extract, self.frames, self.audio)

    @property
    def before_index(self) -> tuple[Discover | Pair | Fetch, ...]:
        """The stages that find the clips and their files, in order.

        Files that hold recordings are fetched first, because they say which clips there are. Other
        files are fetched once the clips are known.
        """
        match self.table:
            case Discover():
                return (self.table, self.fetch)
            case Pair():
                return (self.fetch, self.table)
            case None:
                return (self.fetch,)

    @property
    def generations(self) -> tuple[Stage, ...]:
        """The stages whose folders are named by settings and clips."""
        return (self.index, self.extract, self.frames, self.audio)


def build_stages(
    dataset: str, request: PrepareRequest, *, root: Path, brings_files: bool = True
) -> DatasetStages:
    """Build the stages and choose their folders; touch nothing.

    A data set without a published table has the clips that were discovered so far.

    Args:
        dataset: name of the data set.
        request: what is asked for.
        root: folder that holds the data sets.
        brings_files: the stages may have to bring files, so the folder that the YAML of the data
            set names must be there.

    Raises:
        UserError: there is no such data set, the source folder does not exist or is the wrong one,
            or no installed library knows the URL of the store.
    """
    manifest, source = load(dataset), request.source
    if source is not None and not source.is_dir():
        raise UserError(f"--source {source} is not a folder; give the one that holds the files.")
    if source is None and manifest.folder is not None and brings_files:
        source = Path(manifest.folder)
        if not source.is_dir():
            raise UserError(
                f"{dataset}.yaml: folder: {source} is not a folder; mend the line, or give the "
                "folder that holds the files as --source."
            )
    folder = root / dataset
    state = folder / "state"
    if manifest.layout is not None and source is not None:
        source = find_layout_folder(manifest.layout, source)
    table = _table_stage(manifest, folder, source)
    if table:
        manifest = table.with_clips()
    clips = select(manifest, request.settings.limit)
    fetch = Fetch(folder / "raw", state, manifest, clips, source, link=request.link)
    index, extract, frames, audio = _stages_of_clips(request, fetch, folder)
    return DatasetStages(folder, manifest, request, table, fetch, index, extract, frames, audio)


def load_with_clips(dataset: str, root: Path) -> Manifest:
    """Return the manifest of a data set, with its clips.

    The clips are the published clips, or the clips that were found below ``root`` so far.

    Raises:
        UserError: there is no such data set, or the table of its clips is damaged.
    """
    manifest = load(dataset)
    table = _table_stage(manifest, root / dataset, source=None)
    if table is None:
        return manifest
    require_undamaged_table(table, table.folder)
    return table.with_clips()


def _table_stage(manifest: Manifest, folder: Path, source: Path | None) -> Discover | Pair | None:
    """Return the stage that writes the table of clips; None where a table was published.

    Args:
        manifest: the facts about the data set.
        folder: the folder of the data set.
        source: the folder that holds the files; None knows only the files that were found before.
    """
    state = folder / "state"
    if manifest.layout is not None:
        return Discover(folder / "table", state, manifest, source)
    if manifest.pairs is not None:
        fetch = Fetch(folder / "raw", state, manifest, ClipTable.empty(), source)
        return Pair(folder / "table", state, manifest, fetch)
    return None


def build_as_requested(
    dataset: str,
    *,
    root: Path,
    source: Path | None = None,
    brings_files: bool = False,
    readers: Mapping[str, ReaderSource] = MappingProxyType({}),
) -> DatasetStages:
    """Build the stages for the request of the last prepare.

    Args:
        dataset: name of the data set.
        root: folder that holds the data sets.
        source: a folder that holds the files as published.
        brings_files: the command may have to bring files again; without ``source``, the files then
            come from the folder of the last prepare.
        readers: the readers of files of the user, by suffix, which the last prepare had too.

    Raises:
        UserError: no prepare was started there, or it had other readers; otherwise like
            :func:`build_stages`.
    """
    request = load_request(root, dataset)
    if request is None:
        raise not_prepared_error(root, dataset)
    source = source or (request.source if brings_files else None)
    chosen = with_code(dataset, request.readers, readers)
    request = request.model_copy(update={"source": source, "readers": chosen})
    return build_stages(dataset, request, root=root, brings_files=brings_files)


def rebuild_with_source(stages: DatasetStages, source: Path | None) -> DatasetStages:
    """Build the same stages again, with files from another folder."""
    request = stages.request.model_copy(update={"source": source})
    return build_stages(stages.manifest.name, request, root=stages.folder.parent)


def rebuild_generations(stages: DatasetStages) -> DatasetStages:
    """Build the stages again whose folders are named by the files that fetch has brought.

    The table of clips is not read again, because a large table would be in memory twice.
    """
    index, extract, frames, audio = _stages_of_clips(stages.request, stages.fetch, stages.folder)
    return replace(stages, index=index, extract=extract, frames=frames, audio=audio)


def _stages_of_clips(
    request: PrepareRequest, fetch: Fetch, folder: Path
) -> tuple[Index, Extract, Cache, Cache]:
    """Build the stages whose folders are generations; see ``prepare/generations.py``."""
    store = folder if request.store is None else open_store(request.store) / folder.name
    settings, state, clips = request.settings, fetch.state, describe_clips(fetch)
    versions = [kind.version for kind in (Index, Extract, FrameCache, AudioCache)]
    manifest = fetch.manifest
    facts: list[object] = [versions, manifest.visual, identity_of_splits(manifest)]
    facts.append(clips.fingerprint)
    if manifest.has_events:
        facts += [manifest.audio, EventFrameCache.version, EventAudioCache.version]
    identity = fingerprint(facts)

    def name(*chosen: StrictModel, prefix: str = "", suffix: str = "") -> str:
        settings_mark = fingerprint([one.model_dump() for one in chosen])[:8]
        return generation_name(prefix + settings_mark, settings.limit, identity, suffix)

    index_name = generation_name("clips", settings.limit, identity)
    index = Index(folder / "index" / index_name, state, manifest, clips)
    extract = Extract(
        store / "shards" / name(settings.extract),
        state,
        raw=fetch.folder,
        index=index.folder,
        split=manifest.default_split,
        visual=manifest.visual,
        audio=manifest.audio,
        chosen=settings.extract,
        readers=request.readers,
    )

    def cache(kind: type[Cache], chosen: StrictModel) -> Cache:
        place = name(settings.extract, chosen, prefix=f"{kind.name}-", suffix=".zarr")
        return kind(store / "cache" / place, state, extract.folder, chosen)

    if manifest.has_events:
        frames = cache(EventFrameCache, settings.events)
        audio = cache(EventAudioCache, EventAudioCache.bins_of(settings.events))
    else:
        frames = cache(FrameCache, settings.frames)
        audio = cache(AudioCache, settings.audio)
    return index, extract, frames, audio
