"""The prepared data set of a run: its samples, and whether the data are those of the run."""

from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import locate
from avsnn.pipeline.engine.lock import hold_for_reading
from avsnn.pipeline.formats.clip_index import open_index
from avsnn.pipeline.formats.damaged import damaged_error
from avsnn.pipeline.formats.prepare_settings import prepare_command
from avsnn.pipeline.formats.prepared_json import Prepared, require_prepared
from avsnn.pipeline.loading.cache_source import CacheSource
from avsnn.pipeline.loading.local_cache import open_local_cache
from avsnn.pipeline.loading.open_files import allow_many_open_files
from avsnn.pipeline.loading.shard_source import ShardSource
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.settings_overrides import differences


def open_source(config: RunConfig, *, shards: bool = False) -> Source:
    """Open the samples that a run is trained on.

    Args:
        config: the configuration of the run.
        shards: decode the samples from the shards instead of reading the caches; the samples are
            the same.

    Raises:
        UserError: the prepared data are gone or damaged, or were prepared again with other content.
    """
    prepared = _require_same_content(config)
    folder = config.root / config.dataset
    _hold(folder / prepared.index / "clips.jsonl")
    allow_many_open_files()
    # Another content under the same URLs must not be taken for what was copied before.
    copies = open_local_cache(version=prepared.fingerprint)
    source: Source
    if shards:
        place = locate(folder, prepared.shards)
        source = ShardSource(shards=place, settings=prepared.settings, copies=copies)
    else:
        place, audio = locate(folder, prepared.frames), locate(folder, prepared.audio)
        source = CacheSource(frames=place, audio=audio, copies=copies)
    if len(source.labels) != prepared.clips:
        why = f"it holds {len(source.labels):,} clips, {prepared.clips:,} were written"
        raise damaged_error(place, why)
    return source


@lru_cache(maxsize=1)
def _hold(index: Path) -> BinaryIO | None:
    """Keep `prepare` from removing the data that this process reads, until it reads other data."""
    return hold_for_reading(index)


def require_same_data(config: RunConfig, folder: Path) -> None:
    """Check that the prepared data of a run are what the run was trained on.

    A new training need not check: its configuration was made from these data.

    Args:
        config: the configuration of the run.
        folder: the run folder, for messages.

    Raises:
        UserError: the data are gone, or their content, labels, class names or parts have changed.
    """
    prepared = _require_same_content(config, folder)
    index = open_index(config.root / config.dataset / prepared.index)
    if config.clips not in (None, index.fingerprint(config.split)):
        raise UserError(
            f"{folder}: {config.dataset} in {config.root} has other labels, class names or parts "
            f"of the split {config.split!r} than this run was trained on; train again, or restore "
            f"the table and run '{_prepare_again(config)}'."
        )


def _require_same_content(config: RunConfig, folder: Path | None = None) -> Prepared:
    """Return the prepared data of a run, if the content of the caches is as in the training."""
    prepared = require_prepared(config.root, config.dataset)
    if prepared.fingerprint != config.data.fingerprint:
        changed = differences(config.data.settings, prepared.settings)
        what = f"other settings ({'; '.join(changed)})" if changed else "other clips or labels"
        when = "" if changed else "after its table and files are as they were, "
        raise UserError(
            f"{f'{folder}: ' if folder else ''}{config.dataset} in {config.root} is not what this "
            f"run was trained on: it was prepared with {what}. Train again, or {when}run "
            f"'{_prepare_again(config)}'."
        )
    return prepared


def _prepare_again(config: RunConfig) -> str:
    """Return the command that prepares the data of a run as they were."""
    return prepare_command(config.dataset, config.data.settings, config.root)
