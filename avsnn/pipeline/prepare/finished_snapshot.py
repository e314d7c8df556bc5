"""The snapshot of a finished prepare: one file that tells whether anything has changed since.

The snapshot holds the fingerprint of everything that a plan is made of (request, manifest, code),
the counts of every stage, and size and time of every file that the stages wrote, the journals among
them. While all of this is unchanged, a plan would find nothing to do, so a rerun need not plan:
planning computes the fingerprint of every unit, the snapshot is a list of files.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from pydantic import BaseModel

from avsnn.datasets_manifest import Manifest, load
from avsnn.pipeline.engine.atomic_files import name_in, why_damaged, write_atomically
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.journal import StageCounts, StageSummary
from avsnn.pipeline.engine.lock import lock_folder, require_no_writer
from avsnn.pipeline.engine.stage import outputs_of
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

SNAPSHOT = Path("state", "snapshot.txt")

# The snapshot of earlier versions, which held all files in one value of JSON.
FORMER_SNAPSHOT = Path("state", "seal.json")

# The last line of a whole snapshot.
END = b"end\n"

# What stands in place of size and time for a file that is not there.
ABSENT = b"-1 0 "

# The stages whose code decides what a plan is; `discover` has no snapshot.
KINDS = (
    *(Fetch, Pair, Index, Extract),
    *(FrameCache, AudioCache, EventFrameCache, EventAudioCache),
)


class Header(BaseModel):
    """The first line of the snapshot file.

    Every further line is about one file: size in bytes, time in ns, and path. The path of a file of
    the source folder is absolute, every other path starts at the data set's folder. The last line
    is `END`.

    Attributes:
        mark: fingerprint of everything that the plan was made of.
        stages: what each stage counted.
    """

    mark: str
    stages: list[StageCounts]


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
    with suppress(OSError, ValueError), (folder / SNAPSHOT).open("rb") as lines:
        header = Header.model_validate_json(next(lines, b""))
        start = os.fsencode(folder / "_").removesuffix(b"_")
        if header.mark != mark:
            return None
        for line in lines:
            if line == END:
                return header.stages
            # Bytes, because making a `pathlib` object costs more than the look at the file.
            _, _, path = line.rstrip(b"\n").split(b" ", 2)
            if not os.path.isabs(path):  # noqa: PTH117
                path = start + path
            if not line.startswith(_size_and_time(path)):
                return None
    return None


def write_snapshot_of(stages: DatasetStages, summaries: list[StageSummary]) -> None:
    """Write the snapshot of a prepare that has just finished.

    There is no snapshot where a plan looks at more than local files: where shards and caches are in
    a store, or where a source folder is searched for new files.
    """
    (stages.folder / FORMER_SNAPSHOT).unlink(missing_ok=True)
    if isinstance(stages.table, Discover) or stages.request.store:
        return
    header = Header(
        # The manifest as published: the table that `pair` writes is one of the files.
        mark=_plan_fingerprint(load(stages.manifest.name), stages.request),
        stages=[replace(summary.counts, units_done_now=0, seconds=0.0) for summary in summaries],
    )
    lines = (b"%b%b\n" % (state, os.fsencode(name)) for name, state in _files(stages))
    first = header.model_dump_json().encode() + b"\n"
    write_atomically(stages.folder / SNAPSHOT, chain([first], lines, [END]))


def _files(stages: DatasetStages) -> Iterator[tuple[str, bytes]]:
    """Yield every file that a plan looks at, with size and time as the plan has found the file."""
    for stage in stages.in_order:
        folder = name_in(stages.folder, stage.folder)
        for output in outputs_of(stage):
            state = _size_and_time(os.fsencode(str(stage.folder / output.path)))
            written = b"%d %d " % (output.size, output.mtime_ns)
            # A file whose time alone has changed is done, but a file may change at any moment.
            is_done = state == written or not why_damaged(stage.folder / output.path, output)
            yield f"{folder}/{output.path}", state if is_done else written
    # A file without a published checksum may be corrected in the source folder, or may arrive.
    for path in stages.fetch.watched_sources():
        yield str(path), _size_and_time(os.fsencode(path))
    results = [stages.folder / name for name in ("prepared.json", "failures.jsonl")]
    journals = [stage.journal for stage in stages.in_order if stage.journal.exists()]
    for path in (*results, *journals):
        yield str(path.relative_to(stages.folder)), _size_and_time(os.fsencode(path))


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
            manifest.table and _sha256_of_table(manifest),
            request.model_dump(mode="json"),
        ]
    )


def _sha256_of_table(manifest: Manifest) -> str:
    with manifest.open_table() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size_and_time(path: bytes) -> bytes:
    """Return the start of a line of the snapshot: size and time of a file."""
    try:
        stat = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return ABSENT
    return b"%d %d " % (stat.st_size, stat.st_mtime_ns)
