"""Is what was prepared still what was written? Every byte is read again; repair redoes the rest."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from avsnn.errors import RunError
from avsnn.pipeline.engine.files import Folder, Output, name_in, why_damaged
from avsnn.pipeline.engine.journal import Record, StageSummary
from avsnn.pipeline.engine.lock import lock_folder
from avsnn.pipeline.engine.plan import plan, why_stale
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.engine.stage import Stage, records
from avsnn.pipeline.prepare.build import DatasetStages
from avsnn.pipeline.prepare.results import failure_lines, make_prepared
from avsnn.pipeline.transfer.lfs_pointer import is_lfs_pointer


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written.

    Attributes:
        stage: whose it is; empty for a file that no stage wrote.
        unit: what has to be done again; empty where nothing has to.
        path: the file, below the data set's folder; empty where the unit as a whole is meant.
        reason: what is wrong.
    """

    stage: str
    unit: str
    path: str
    reason: str


@dataclass
class Verification:
    """What a verification read, and what it found."""

    files: int = 0
    bytes: int = 0
    damages: list[Damage] = field(default_factory=list)


def verify(stages: DatasetStages, *, progress: Progress) -> Verification:
    """Reads every file that the stages wrote, and compares it with its record.

    Finds flipped bits, cut and missing files, units that were never finished or were made with
    other settings, Git LFS pointers in place of files, and what a killed run left over. Writes
    nothing.

    Args:
        stages: the stages, with the settings of the last prepare.
        progress: told of every file.

    Raises:
        UserError: another run is writing there.
    """
    verification = Verification()
    with lock_folder(stages.folder, tidy=False):
        standing: list[StageSummary] = []
        for stage in stages.in_order:
            found = records(stage)
            # What a stage has to do stands in the JSON that the one before it left.
            if not any(
                damage.path.endswith((".json", ".jsonl")) for damage in verification.damages
            ):
                current = plan(stage)
                standing.append(current.up_to_date(stage))
                for unit in current.todo:
                    if why := why_stale(stage, unit, current.last_records.get(unit.name)):
                        verification.damages.append(Damage(stage.name, unit.name, "", why))
                        found.pop(unit.name, None)
                planned = {unit.name for unit in current.units}
                found = {name: record for name, record in found.items() if name in planned}
            verification.damages += _damaged_files(stages, stage, found, verification, progress)
        if not verification.damages:
            verification.damages += _wrong_conclusions(stages, standing)
        verification.damages += (
            Damage("", "", path, "is left over") for path in _leftovers(stages)
        )
    return verification


def require_undamaged(stages: DatasetStages, verification: Verification) -> None:
    """Ends a command that found damage.

    Raises:
        RunError: there is some; says how much and what to do.
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


def _damaged_files(
    stages: DatasetStages,
    stage: Stage,
    known: dict[str, Record],
    verification: Verification,
    progress: Progress,
) -> list[Damage]:
    files = [(unit, output) for unit, record in known.items() for output in record.outputs]
    found = []
    progress.start(f"verify {stage.name}", len(files), "files")

    def check(output: Output) -> str:
        return _why_damaged(stage.folder / output.path, output)

    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            whys = pool.map(check, (output for _, output in files))
            for (unit, output), why in zip(files, whys, strict=True):
                if why:
                    path = name_in(stages.folder, stage.folder / output.path)
                    found.append(Damage(stage.name, unit, path, why))
                verification.files += 1
                verification.bytes += output.size
                progress.advance()
    finally:
        progress.stop()
    return found


def _why_damaged(path: Folder, output: Output) -> str:
    why = why_damaged(path, output, rehash=True)
    if why and path.exists() and is_lfs_pointer(path):
        return "is a Git LFS pointer in place of the file"
    return why


def _wrong_conclusions(stages: DatasetStages, standing: list[StageSummary]) -> list[Damage]:
    """The two files that are written last, from what the stages recorded."""
    due = {
        "failures.jsonl": failure_lines(standing, stages.manifest.known_bad),
        "prepared.json": make_prepared(stages, standing).as_text().encode(),
    }
    return [
        Damage("prepare", "", name, "is not what the stages left")
        for name, content in due.items()
        if not (stages.folder / name).exists() or (stages.folder / name).read_bytes() != content
    ]


def _leftovers(stages: DatasetStages) -> Iterator[str]:
    """Files of a killed run, and files among the outputs that no record knows."""
    found: set[Folder] = {*stages.folder.glob("state/partial/**/*")}
    found |= {*stages.folder.rglob(".*.partial")}
    for stage in stages.in_order:
        if stage.prunes:
            outputs = (output for record in records(stage).values() for output in record.outputs)
            found |= {*stage.folder.rglob("*")} - {stage.folder / o.path for o in outputs}
    return (name_in(stages.folder, path) for path in sorted(found, key=str) if path.is_file())
