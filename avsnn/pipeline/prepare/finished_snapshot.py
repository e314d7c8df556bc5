"""The snapshot of a finished prepare: one file that tells whether anything has changed since.

The snapshot holds the fingerprint of everything that a plan is made of (request, manifest, code),
the counts of every stage, and size and time of every file that the stages wrote, the journals among
them. While all of this is unchanged, a plan would find nothing to do, so a rerun need not plan:
planning computes the fingerprint of every unit, the snapshot is a list of files.
"""

import hashlib
import os
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from pydantic import BaseModel

from avsnn.datasets_manifest import Manifest, load
from avsnn.pipeline.engine.atomic_files import name_in, why_damaged, write_atomically
from avsnn.pipeline.engine.children import usable_cores
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.journal import StageCounts, StageSummary
from avsnn.pipeline.engine.lock import lock_folder, require_no_writer
from avsnn.pipeline.engine.stage import outputs_of
from avsnn.pipeline.formats.prepared_json import LAYOUT, Prepared, load_prepared
from avsnn.pipeline.prepare import noted_files
from avsnn.pipeline.prepare.build_stages import DatasetStages
from avsnn.pipeline.prepare.noted_files import lines_of, size_and_time
from avsnn.pipeline.prepare.request import PrepareRequest, last_request, save_request
from avsnn.pipeline.prepare.stages.discover import Discover
from avsnn.pipeline.prepare.stages.extract import Extract
from avsnn.pipeline.prepare.stages.featurize import AudioCache, FrameCache
from avsnn.pipeline.prepare.stages.featurize_events import EventAudioCache, EventFrameCache
from avsnn.pipeline.prepare.stages.fetch import Fetch
from avsnn.pipeline.prepare.stages.index import Index
from avsnn.pipeline.prepare.stages.pair import Pair
from avsnn.pipeline.transfer.local_files import UNREADABLE
from avsnn.version import VERSION

SNAPSHOT = Path("state", "snapshot.txt")

# The snapshot of earlier versions, which held all files in one value of JSON.
FORMER_SNAPSHOT = Path("state", "seal.json")

# A process of its own looks at the files of so many bytes of a snapshot: at about 100,000 files.
BYTES_PER_PROCESS = 5_000_000

# The stages whose code decides what a plan is; `discover` has no snapshot.
KINDS = (
    *(Fetch, Pair, Index, Extract),
    *(FrameCache, AudioCache, EventFrameCache, EventAudioCache),
)


class Header(BaseModel):
    """The first line of the snapshot file.

    Every further line is about files, as `noted_files` writes them. The path of a file of the
    source folder is absolute, every other path starts at the data set's folder. The last line is
    the CRC-32 of all other lines.

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
    snapshot = folder / SNAPSHOT
    # A damaged snapshot is none.
    with suppress(OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        # The opening of a named pipe would wait for ever.
        if not snapshot.is_file() or not _is_whole(snapshot):
            return None
        with snapshot.open("rb") as lines:
            header = Header.model_validate_json(lines.readline())
        parts = min(usable_cores(), 1 + snapshot.stat().st_size // BYTES_PER_PROCESS)
        if header.mark == mark and _files_are_unchanged(folder, parts):
            return header.stages
    return None


def _is_whole(snapshot: Path) -> bool:
    """Return whether the last line of a snapshot holds the checksum of all other lines."""
    checksum, last = 0, b""
    with snapshot.open("rb") as lines:
        for line in lines:
            checksum, last = zlib.crc32(last, checksum), line
    return last == b"%d\n" % checksum


def _with_checksum(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines, and one more line with the checksum of the lines."""
    checksum = 0
    for line in lines:
        checksum = zlib.crc32(line, checksum)
        yield line
    yield b"%d\n" % checksum


def _files_are_unchanged(folder: Path, parts: int) -> bool:
    """Return whether the files that a snapshot lists are as they were.

    Args:
        folder: the folder of the data set.
        parts: number of processes that look at the files, with this process.
    """
    snapshot = folder / SNAPSHOT
    # The option `-I` keeps the modules of the current folder out of the program.
    program = [sys.executable, "-I", "-S", noted_files.__file__, str(snapshot), str(folder)]
    others = [
        subprocess.Popen([*program, str(part), str(parts)], stderr=subprocess.DEVNULL)
        for part in range(1, parts)
    ]
    try:
        unchanged = noted_files.part_is_unchanged(snapshot, folder, 0, parts)
        return unchanged and not any(other.wait() for other in others)
    finally:
        for other in others:
            other.kill()
            other.wait()


def write_snapshot_of(stages: DatasetStages, summaries: list[StageSummary]) -> None:
    """Write the snapshot of a prepare that has just finished.

    There is no snapshot where a plan looks at more than sizes and times of local files: where
    shards and caches are in a store, where a source folder is searched for new files, or where a
    source file could not be read.
    """
    (stages.folder / FORMER_SNAPSHOT).unlink(missing_ok=True)
    failures = chain.from_iterable(summary.failures for summary in summaries)
    if any(failure.reason.startswith(UNREADABLE) for failure in failures):
        return
    if isinstance(stages.table, Discover) or stages.request.store:
        return
    header = Header(
        # The manifest as published: the table that `pair` writes is one of the files.
        mark=_plan_fingerprint(load(stages.manifest.name), stages.request),
        stages=[replace(summary.counts, units_done_now=0, seconds=0.0) for summary in summaries],
    )
    lines = lines_of(_files(stages))
    first = header.model_dump_json().encode() + b"\n"
    write_atomically(stages.folder / SNAPSHOT, _with_checksum(chain([first], lines)))


def _files(stages: DatasetStages) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield every file that a plan looks at, with size and time as the plan has found the file."""
    for stage in stages.in_order:
        folder = name_in(stages.folder, stage.folder)
        for output in outputs_of(stage):
            state = size_and_time(str(stage.folder / output.path))
            written = output.size, output.mtime_ns
            # A file whose time alone has changed is done, but a file may change at any moment.
            is_done = state == written or not why_damaged(stage.folder / output.path, output)
            yield f"{folder}/{output.path}", state if is_done else written
    # A file without a published checksum may be corrected in the source folder, or may arrive.
    for path in stages.fetch.watched_sources():
        yield str(path), size_and_time(str(path))
    results = [stages.folder / name for name in ("prepared.json", "failures.jsonl")]
    journals = [stage.journal for stage in stages.in_order if stage.journal.exists()]
    for path in (*results, *journals):
        yield str(path.relative_to(stages.folder)), size_and_time(str(path))


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
