"""Finds a clip of a prepared data set, and reads the files of the clip from its shard."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avsnn.datasets_manifest import load
from avsnn.datasets_manifest.schema import Manifest
from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Folder, locate
from avsnn.pipeline.engine.lock import hold_for_reading
from avsnn.pipeline.formats.clip_index import IndexRow, find_hashes, open_index
from avsnn.pipeline.formats.damaged import damaged_error, unreadable_error
from avsnn.pipeline.formats.membership import key_hashes
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.prepared_json import Prepared, require_prepared
from avsnn.pipeline.formats.shard_columns import open_shards
from avsnn.pipeline.formats.shards import Sample, read_member
from avsnn.pipeline.prepare.final_files import read_failures
from avsnn.suggestions import did_you_mean, there_are


class Clip(NamedTuple):
    """A clip of a prepared data set, with the bytes of its files.

    Attributes:
        manifest: facts about the data set.
        settings: the settings that decided the bytes of shards and caches.
        row: the clip in the index of the data set.
        split: name of a split.
        sample: the clip in its shard.
        shard: the shard.
        members: the bytes of each file of the clip, by the name of the member.
        clips: number of clips that are ready for training.
    """

    manifest: Manifest
    settings: PrepareSettings
    row: IndexRow
    split: str
    sample: Sample
    shard: Folder
    members: dict[str, bytes]
    clips: int


def read_clip(dataset: str, key: str | None, *, split: str | None, root: Path) -> Clip:
    """Read a clip from its shard.

    Args:
        dataset: name of the data set.
        key: key of the clip; None takes the first key in alphabetical order.
        split: name of a split; None takes the default split of the data set.
        root: folder that holds the data sets.

    Raises:
        UserError: the data set is not prepared or damaged, or has no such clip or split, or
            `prepare` could not use the clip.
    """
    prepared = require_prepared(root, dataset)
    manifest = load(dataset)
    folder = root / manifest.name
    # `prepare` removes no files that this process still reads.
    held = hold_for_reading(folder / prepared.index / "clips.jsonl")
    try:
        row, clips = _find_row(folder, prepared, key, root=root)
        split = split or manifest.default_split
        if split not in row.splits:
            known = there_are(split, row.splits)
            near = did_you_mean(split, row.splits)
            raise UserError(f"{manifest.name} has no split {split!r}; {near}{known}.")
        shard, sample = _find_sample(locate(folder, prepared.shards), row)
        with _reading(shard):
            members = {name: read_member(shard, member) for name, member in sample.members.items()}
        return Clip(manifest, prepared.settings, row, split, sample, shard, members, clips)
    finally:
        if held:
            held.close()


def _find_row(
    folder: Path, prepared: Prepared, key: str | None, *, root: Path
) -> tuple[IndexRow, int]:
    """Return the clip in the index, and the number of all clips that are ready."""
    index = folder / prepared.index / "clips.jsonl"
    with _reading(folder / "failures.jsonl"):
        failures = read_failures(folder)
    if key in failures:
        raise UserError(
            f"the clip {key} of {prepared.dataset} could not be prepared: "
            f"{'; '.join(failures[key])}."
        )
    found = open_index(index.parent)
    is_ready = np.ones(len(found), np.bool_)
    rows = found.find(failures)
    is_ready[rows[rows >= 0]] = False
    keys = found.keys[is_ready]
    if not len(keys):
        raise UserError(
            f"no clip of {prepared.dataset} in {root} is ready; run 'avsnn prepare "
            f"{prepared.dataset} --root {root}' again."
        )
    key = min(keys) if key is None else key
    (row,) = found.find([key])
    if row < 0:
        raise UserError(
            f"no prepared clip of {prepared.dataset} in {root} has the key {key!r}; "
            f"{did_you_mean(key, keys)}{index} lists the keys of all {len(keys):,} clips."
        )
    return found.row(row), len(keys)


def _find_sample(shards: Folder, row: IndexRow) -> tuple[Folder, Sample]:
    """Return the shard that holds a clip, and the clip in the shard."""
    with _reading(shards):
        columns = open_shards(shards)
    (found,) = find_hashes(columns.clips["hash"], key_hashes([row.key]))
    if found >= 0:
        return columns.sample(found)
    raise damaged_error(shards, f"no shard holds the clip {row.key}")


@contextmanager
def _reading(path: Folder) -> Iterator[None]:
    """Turn an error of the file system into one sentence.

    Raises:
        UserError: the file cannot be opened or read.
    """
    try:
        yield
    except OSError as error:
        raise unreadable_error(path, error) from None
