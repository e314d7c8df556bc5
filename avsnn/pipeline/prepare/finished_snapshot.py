"""The snapshot of a finished prepare: one file that tells whether anything has changed since.

The snapshot holds the fingerprint of everything that a plan is made of (request, manifest, code),
the counts of every stage, and size and time of every file that the stages wrote, the journals among
them. While all of this is unchanged, a plan would find nothing to do, so a rerun need not plan:
planning looks at every unit, the snapshot is a single file.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ValidationError

from avsnn.datasets_manifest import Manifest, load
from avsnn.pipeline.engine.atomic_files import name_in, write_if_changed
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.journal import StageCounts, StageSummary
from avsnn.pipeline.engine.lock import lock_folder, require_no_writer
from avsnn.pipeline.formats.prepared_json import LAYOUT, Prepared, load_prepared
from avsnn.pipeline.prepare.build_stages import DatasetStages
from avsnn.pipeline.prepare.request import PrepareRequest, last_request, save_request
from avsnn.pipeline.prepare.stages.discover import Discover
from avsnn.pipeline.prepare.stages.extract import Extract
from avsnn.pipeline.prepare.stages.featurize import AudioCache, FrameCache
from avsnn.pipeline.prepare.stages.featurize_events import EventAudioCache, EventFrameCache
from avsnn.pipeline.prepare.stages.fetch import Fetch
from avsnn.pipeline.prepare.stages.index import Index
from avsnn.pipeline.prepare.stages.pair import Pair
from avsnn.version import VERSION

# The first version called the snapshot a seal; the file keeps its name, so that a data set has one
# such file and not two.
SNAPSHOT = Path("state", "seal.json")

# Size and time that stand for a file that is not there.
ABSENT = (-1, 0)

# The stages whose code decides what a plan is; `discover` has no snapshot.
KINDS = (
    *(Fetch, Pair, Index, Extract),
    *(FrameCache, AudioCache, EventFrameCache, EventAudioCache),
)


class Snapshot(BaseModel):
    """The content of the snapshot file.

    Attributes:
        mark: fingerprint of everything that the plan was made of (the file keeps this name from the
            first version).
        stages: what each stage counted.
        files: size in bytes and time in ns of every file, by its path below the data set's folder;
            a file of the source folder is named by its whole path.
    """

    mark: str
    stages: list[StageCounts]
    files: dict[str, tuple[int, int]]


def finished_before(
    dataset: str, request: PrepareRequest, *, root: Path
) -> tuple[Prepared, list[StageCounts]] | None:
    """Return what a finished prepare left and counted, if it was asked for the same.

    None means: something changed, or only a plan can tell. Another prepare may have been started
    and interrupted since, so ``request.json`` becomes the request of the finished prepare again.

    Raises:
        UserError: there is no such data set, or another run is writing there.
    """
    folder = root / dataset
    # Not `Path.exists`, which raises an exception for a loop of links and for a name too long.
    if not os.path.exists(folder / "prepared.json"):  # noqa: PTH110
        return None
    require_no_writer(folder)
    counts = read_unchanged_snapshot(folder, mark=_plan_fingerprint(load(dataset), request))
    prepared = load_prepared(root, dataset) if counts else None
    if prepared and last_request(root, dataset) != request:
        with lock_folder(folder):
            save_request(folder, request)
    return (prepared, counts) if prepared and counts else None


def read_unchanged_snapshot(folder: Path, *, mark: str) -> list[StageCounts] | None:
    """Return what the stages of a finished prepare counted; None where anything has changed.

    Args:
        folder: the folder of the data set.
        mark: fingerprint of everything that a plan would be made of now.
    """
    with suppress(OSError, ValidationError):
        snapshot = Snapshot.model_validate_json((folder / SNAPSHOT).read_bytes())
        if snapshot.mark == mark and all(
            _is_unchanged(folder, name, *stat) for name, stat in snapshot.files.items()
        ):
            return snapshot.stages
    return None


def write_snapshot_of(stages: DatasetStages, summaries: list[StageSummary]) -> None:
    """Write the snapshot of a prepare that has just finished.

    There is no snapshot where a plan looks at more than local files: where shards and caches are in
    a store, or where a source folder is searched for new files.
    """
    if isinstance(stages.table, Discover) or stages.request.store:
        return
    files = {
        f"{name_in(stages.folder, stage.folder)}/{output.path}": (output.size, output.mtime_ns)
        for stage, summary in zip(stages.in_order, summaries, strict=True)
        for output in summary.outputs
    }
    # A file without a published checksum may be corrected in the source folder, or may arrive.
    for path in stages.fetch.watched_sources():
        files[str(path)] = ABSENT
        if path.exists():
            stat = path.stat()
            files[str(path)] = (stat.st_size, stat.st_mtime_ns)
    results = [stages.folder / name for name in ("prepared.json", "failures.jsonl")]
    journals = [stage.journal for stage in stages.in_order if stage.journal.exists()]
    for path in (*results, *journals):
        stat = path.stat()
        files[str(path.relative_to(stages.folder))] = (stat.st_size, stat.st_mtime_ns)
    snapshot = Snapshot(
        # The manifest as published: the table that `pair` writes is one of the files.
        mark=_plan_fingerprint(load(stages.manifest.name), stages.request),
        stages=[replace(summary.counts, units_done_now=0, seconds=0.0) for summary in summaries],
        files=files,
    )
    write_if_changed(stages.folder / SNAPSHOT, snapshot.model_dump_json().encode())


def _plan_fingerprint(manifest: Manifest, request: PrepareRequest) -> str:
    """Return the fingerprint of everything that a plan is made of, except the files."""
    return fingerprint(
        [
            VERSION,
            LAYOUT,
            [(kind.__name__, kind.version) for kind in KINDS],
            # Words for people change no plan.
            manifest.model_dump(
                mode="json", exclude={"title", "description", "homepage", "licence", "preset"}
            ),
            manifest.table and hashlib.sha256(manifest.table_bytes).hexdigest(),
            request.model_dump(mode="json"),
        ]
    )


def _is_unchanged(folder: Path, name: str, size: int, mtime_ns: int) -> bool:
    # Text, because making a `pathlib` object costs more than the look at the file.
    try:
        stat = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118
    except FileNotFoundError:
        return (size, mtime_ns) == ABSENT
    return (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns)
