"""Is what was prepared still what was written? Every byte is read again; repair redoes the rest."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from avsnn.errors import RunError
from avsnn.pipeline.files import Folder, Output, locate, name_in, only_writer, why_damaged
from avsnn.pipeline.journal import Record, Summary
from avsnn.pipeline.media import LFS_POINTER
from avsnn.pipeline.prepare import House, Prepared, conclude, failure_lines, prepare
from avsnn.pipeline.stage import Progress, Stage, plan, records, why_stale


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
class Verdict:
    """What a verification read, and what it found."""

    files: int = 0
    bytes: int = 0
    damages: list[Damage] = field(default_factory=list)


def verify(house: House, *, progress: Progress) -> Verdict:
    """Reads every file that the stages wrote, and compares it with its record.

    Finds flipped bits, cut and missing files, units that were never finished or were made with
    other settings, Git LFS pointers in place of files, and what a killed run left over. Writes
    nothing.

    Args:
        house: the stages, with the settings of the last prepare.
        progress: told of every file.

    Raises:
        UserError: another run is writing there.
    """
    verdict = Verdict()
    with only_writer(house.folder, tidy=False):
        standing: list[Summary] = []
        for stage in house.stages:
            found = records(stage)
            # What a stage has to do stands in the JSON that the one before it left.
            if not any(damage.path.endswith((".json", ".jsonl")) for damage in verdict.damages):
                current = plan(stage)
                standing.append(current.standing(stage))
                for unit in current.todo:
                    if why := why_stale(stage, unit, current.done.get(unit.name)):
                        verdict.damages.append(Damage(stage.name, unit.name, "", why))
                        found.pop(unit.name, None)
                planned = {unit.name for unit in current.units}
                found = {name: record for name, record in found.items() if name in planned}
            verdict.damages += _damaged_files(house, stage, found, verdict, progress)
        if not verdict.damages:
            verdict.damages += _wrong_conclusions(house, standing)
        verdict.damages += (Damage("", "", path, "is left over") for path in _leftovers(house))
    return verdict


def require_sound(house: House, verdict: Verdict) -> None:
    """Ends a command that found damage.

    Raises:
        RunError: there is some; says how much and what to do.
    """
    if verdict.damages:
        first = verdict.damages[0]
        count = len(verdict.damages)
        things = (
            "1 thing is not as it was" if count == 1 else f"{count:,} things are not as they were"
        )
        raise RunError(
            f"{house.manifest.name}: {things} written "
            f"(first: {first.path or first.unit} {first.reason}). "
            f"Run 'avsnn repair {house.manifest.name} --root {house.folder.parent}'."
        )


def repair(
    house: House,
    verdict: Verdict,
    *,
    workers: int | None,
    progress: Progress,
    on_stage: Callable[[Summary], None],
) -> Prepared:
    """Does again exactly what a verification found damaged, and removes what was left over.

    Args:
        house: the stages, as they were verified.
        verdict: what was found.
        workers: processes that decode; None takes one per core, 0 works in this process.
        progress: told of every unit.
        on_stage: called as each stage ends.

    Raises:
        RunError: a stage failed, or too many clips did.
        UserError: the disk is full, or another run writes here.
    """
    redo: dict[str, dict[str, str]] = defaultdict(dict)
    for damage in verdict.damages:
        if damage.unit:
            redo[damage.stage][damage.unit] = damage.reason
        elif not damage.stage:
            locate(house.folder, damage.path).unlink(missing_ok=True)
    return prepare(house, workers=workers, progress=progress, redo=redo, on_stage=on_stage)


def _damaged_files(
    house: House, stage: Stage, known: dict[str, Record], verdict: Verdict, progress: Progress
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
                    path = name_in(house.folder, stage.folder / output.path)
                    found.append(Damage(stage.name, unit, path, why))
                verdict.files += 1
                verdict.bytes += output.size
                progress.advance()
    finally:
        progress.stop()
    return found


def _why_damaged(path: Folder, output: Output) -> str:
    why = why_damaged(path, output, rehash=True)
    if why and path.exists():
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                return "is a Git LFS pointer in place of the file"
    return why


def _wrong_conclusions(house: House, standing: list[Summary]) -> list[Damage]:
    """The two files that are written last, from what the stages recorded."""
    due = {
        "failures.jsonl": failure_lines(standing, house.manifest.known_bad),
        "prepared.json": conclude(house, standing).as_text().encode(),
    }
    return [
        Damage("prepare", "", name, "is not what the stages left")
        for name, content in due.items()
        if not (house.folder / name).exists() or (house.folder / name).read_bytes() != content
    ]


def _leftovers(house: House) -> Iterator[str]:
    """Files of a killed run, and files among the outputs that no record knows."""
    found: set[Folder] = {*house.folder.glob("state/partial/**/*")}
    found |= {*house.folder.rglob(".*.partial")}
    for stage in house.stages:
        if stage.prunes:
            outputs = (output for record in records(stage).values() for output in record.outputs)
            found |= {*stage.folder.rglob("*")} - {stage.folder / o.path for o in outputs}
    return (name_in(house.folder, path) for path in sorted(found, key=str) if path.is_file())
