"""Compares everything that was prepared with what was written, byte for byte."""

import os
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from avsnn.errors import RunError
from avsnn.pipeline.engine.atomic_files import (
    Folder,
    Output,
    is_partial,
    name_in,
    why_damaged,
)
from avsnn.pipeline.engine.children import usable_cores
from avsnn.pipeline.engine.is_done import PLANNED_FROM, why_stale
from avsnn.pipeline.engine.journal import Record, StageSummary, summarise
from avsnn.pipeline.engine.lock import require_no_writer
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.engine.stage import Stage, records
from avsnn.pipeline.engine.stores import list_files, listed
from avsnn.pipeline.prepare.build_stages import DatasetStages
from avsnn.pipeline.prepare.final_files import failure_lines, make_prepared
from avsnn.pipeline.transfer.lfs_pointer import is_lfs_pointer

# So many files for each worker wait to be read, or have been read and wait to be reported.
FILES_PER_WORKER = 16

IS_POINTER = "is a Git LFS pointer in place of the file"

Kind = Literal["missing", "changed", "lfs-pointer", "not-done", "result", "left-over", "unknown"]


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written.

    Attributes:
        kind: ``missing`` or ``changed`` for a file that a stage wrote; ``lfs-pointer`` for a Git
            LFS pointer in place of such a file; ``not-done`` for a unit that has to run, or run
            again; ``result`` for a file that a prepare writes last; ``left-over`` for a scratch
            file of a killed run; ``unknown`` for a file that no stage wrote.
        stage: name of the stage that wrote the file; empty for a file that no stage wrote.
        unit: the unit that must run again; empty where no unit must run again.
        path: path of the file below the data set's folder; empty where the whole unit is meant.
        reason: what is wrong.
        bytes: size of a file that no stage wrote; 0 for everything else.
    """

    kind: Kind
    stage: str
    unit: str
    path: str
    reason: str
    bytes: int = 0


@dataclass
class Verification:
    """What a verification read, and what it found.

    Attributes:
        files: number of files read.
        bytes: number of bytes of these files, as recorded.
        damages: everything that is not as it was written.
    """

    files: int = 0
    bytes: int = 0
    damages: list[Damage] = field(default_factory=list)

    @property
    def unknown(self) -> list[Damage]:
        """The files among the outputs that no stage wrote."""
        return [damage for damage in self.damages if damage.kind == "unknown"]


def verify(stages: DatasetStages, *, progress: Progress) -> Verification:
    """Read every file that the stages wrote, and compare the file with its record.

    The verification finds flipped bits, cut and missing files, units that were never finished or
    were made with other settings, Git LFS pointers in place of files, and what a killed run left
    over. The verification writes nothing.

    Args:
        stages: the stages, with the settings of the last prepare.
        progress: told of every file.

    Raises:
        UserError: another run is writing there.
    """
    verification = Verification()
    require_no_writer(stages.folder)
    summaries: list[StageSummary] = []
    planned = set()
    for stage in stages.in_order:
        # A stage plans its units from the tables and JSON files that earlier stages wrote, so such
        # a file that is damaged makes every later plan wrong.
        stale, found = None, iter(records(stage).values())
        if not any(damage.path.endswith(PLANNED_FROM) for damage in verification.damages):
            stale = bytearray()
            found = _find_stale_units(stage, stale, verification)
            planned.add(stage.name)
        summaries.append(summarise(stage.name, found))
        with listed(stage.folder):
            holding = _records_that_hold(stage, stale)
            _check_files(stages, stage, holding, summaries[-1].files, verification, progress)
    if not verification.damages:
        verification.damages += _check_results(stages, summaries)
    verification.damages += _leftovers(stages, planned)
    return verification


def _find_stale_units(
    stage: Stage, stale: bytearray, verification: Verification
) -> Iterator[Record]:
    """Find the units of a stage that are not done, and yield the records of all other units.

    Args:
        stage: the stage.
        stale: gets 1 for each unit that is not done, or was done from other inputs, and 0 for each
            other unit, in the order of the units.
        verification: gets the damages.
    """
    recorded = records(stage)
    for unit in stage.units():
        record = recorded.get(unit.name)
        why = why_stale(stage, unit, record)
        stale.append(bool(why))
        if why:
            verification.damages.append(Damage("not-done", stage.name, unit.name, "", why))
        elif record:
            yield record


def _records_that_hold(stage: Stage, stale: bytearray | None) -> Iterator[Record]:
    """Yield the records of the units that are not stale; all records where no unit can be planned.

    Args:
        stage: the stage.
        stale: what `_find_stale_units` has found; None where the units cannot be planned.
    """
    recorded = records(stage)
    if stale is None:
        yield from recorded.values()
        return
    for unit, is_stale in zip(stage.units(), stale, strict=True):
        if not is_stale:
            yield recorded[unit.name]


def describe(stages: DatasetStages, verification: Verification) -> dict[str, Any]:
    """Return a verification as values of JSON, with what to do about every damage."""
    name = stages.manifest.name
    repair = f"'avsnn repair {name} --root {stages.folder.parent}'"
    kinds = Counter(damage.kind for damage in verification.damages)
    return {
        "dataset": name,
        "folder": str(stages.folder),
        "files": verification.files,
        "bytes": verification.bytes,
        "kinds": {kind: kinds[kind] for kind in get_args(Kind)},
        "damages": [
            {
                **asdict(damage),
                "what_to_do": f"to keep the file, move it elsewhere; {repair} asks, then deletes it"
                if damage.kind == "unknown"
                else f"run {repair}",
            }
            for damage in verification.damages
        ],
    }


def require_undamaged(stages: DatasetStages, verification: Verification) -> None:
    """Do nothing if a verification found no damage.

    Raises:
        RunError: the verification found damage; the sentence says how much and what to do.
    """
    if verification.damages:
        first = verification.damages[0]
        count = len(verification.damages)
        things = (
            "1 thing is not as it was" if count == 1 else f"{count:,} things are not as they were"
        )
        raise RunError(
            f"{stages.manifest.name}: {things} written "
            f"(first: {first.path or first.unit} {first.reason}). "
            f"Run 'avsnn repair {stages.manifest.name} --root {stages.folder.parent}'."
        )


def _check_files(
    stages: DatasetStages,
    stage: Stage,
    recorded: Iterable[Record],
    count: int,
    verification: Verification,
    progress: Progress,
) -> None:
    """Read the files of a stage, and note the damaged files.

    Args:
        stages: all stages of the data set.
        stage: the stage whose files are read.
        recorded: the records of the units whose files are read.
        count: number of these files.
        verification: counts the files and bytes, and gets the damages.
        progress: told of every file.
    """
    workers = usable_cores()
    checks: deque[tuple[str, Output, Future[str]]] = deque()

    def take_first() -> None:
        unit, output, check = checks.popleft()
        if reason := check.result():
            path = name_in(stages.folder, stage.folder / output.path)
            kind = _kind(stage.folder / output.path, reason)
            verification.damages.append(Damage(kind, stage.name, unit, path, reason))
        verification.files += 1
        verification.bytes += output.size
        progress.advance()

    progress.start(f"verify {stage.name}", count, "files")
    try:
        with ThreadPoolExecutor(workers) as pool:
            for record in recorded:
                for output in record.outputs:
                    check = pool.submit(_why_damaged, stage.folder / output.path, output)
                    checks.append((record.unit, output, check))
                    if len(checks) > FILES_PER_WORKER * workers:
                        take_first()
            while checks:
                take_first()
    finally:
        progress.stop()


def _why_damaged(path: Folder, output: Output) -> str:
    reason = why_damaged(path, output, rehash=True)
    if reason and isinstance(path, Path) and path.is_symlink():
        change = "is gone"
        if path.exists():
            change = "has changed since prepare; 'avsnn prepare' takes the change over"
        return f"links to {path.readlink()}, which {change}"
    if reason and path.exists() and is_lfs_pointer(path):
        return IS_POINTER
    return reason


def _kind(path: Folder, reason: str) -> Kind:
    """Return the kind of damage of a file that a stage wrote."""
    if reason == IS_POINTER:
        return "lfs-pointer"
    return "changed" if path.exists() else "missing"


def _check_results(stages: DatasetStages, summaries: list[StageSummary]) -> list[Damage]:
    """Compare the two files that a prepare writes last with what the stages recorded."""
    expected = {
        "failures.jsonl": failure_lines(summaries, stages.manifest.known_bad),
        "prepared.json": make_prepared(stages, summaries).as_text().encode(),
    }
    return [
        Damage("result", "prepare", "", name, "is not what the stages left")
        for name, content in expected.items()
        if not (stages.folder / name).exists() or (stages.folder / name).read_bytes() != content
    ]


def _leftovers(stages: DatasetStages, planned: Container[str]) -> list[Damage]:
    """Find the scratch files of a killed run, and the files among the outputs that nobody knows.

    Args:
        stages: all stages of the data set.
        planned: names of the stages whose units are known; the files that these units will write
            are known too.
    """
    pruned = [stage for stage in stages.in_order if stage.prunes]
    outputs = chain.from_iterable(_outputs(stage, stage.name in planned) for stage in pruned)
    # Hashes, because the paths of all files would fill the memory.
    known = np.sort(np.fromiter(map(hash, outputs), np.int64))
    scratch = f"{stages.folder / 'state' / 'partial'}{os.sep}"
    folders = tuple(str(stage.folder / "_").removesuffix("_") for stage in pruned)
    places: list[Folder] = [stages.folder]
    places += [stage.folder for stage in pruned if isinstance(stage.folder, UPath)]
    found = []
    for path in (path for place in places for path in _files_below(place)):
        kind: Kind = "unknown"
        if str(path).startswith(scratch) or is_partial(path):
            kind = "left-over"
        elif not str(path).startswith(folders) or _is_in(known, hash(path)):
            continue
        reason = "is left over" if kind == "left-over" else "was not written by avsnn"
        name, size = name_in(stages.folder, path), path.stat().st_size
        found.append(Damage(kind, "", "", name, reason, size))
    return sorted(found, key=lambda damage: damage.path)


def _outputs(stage: Stage, is_planned: bool) -> Iterator[Folder]:
    """Yield the place of every file that a stage has written; of a planned stage, or will write."""
    for record in records(stage).values():
        yield from (stage.folder / output.path for output in record.outputs)
    for unit in stage.units() if is_planned else ():
        yield from (stage.folder / name for name in unit.outputs)


def _is_in(ascending: NDArray[np.int64], number: int) -> bool:
    place = np.searchsorted(ascending, number)
    return number in ascending[place : place + 1]


def _files_below(folder: Folder) -> Iterator[Folder]:
    """Yield every file in a folder and below, also links to files."""
    if isinstance(folder, UPath):
        start = len(folder.path.rstrip("/")) + 1
        yield from (folder / file.path[start:] for file in list_files(folder))
        return
    waiting = [str(folder)]
    while waiting:
        # A folder can vanish at any moment.
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file():
                    yield Path(entry.path)
