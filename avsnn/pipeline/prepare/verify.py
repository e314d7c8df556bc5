"""Compares everything that was prepared with what was written, byte for byte."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

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
from avsnn.pipeline.engine.journal import Record, StageSummary
from avsnn.pipeline.engine.lock import require_no_writer
from avsnn.pipeline.engine.plan import plan
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.engine.stage import Stage, records
from avsnn.pipeline.prepare.build_stages import DatasetStages
from avsnn.pipeline.prepare.final_files import failure_lines, make_prepared
from avsnn.pipeline.transfer.lfs_pointer import is_lfs_pointer

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
    written: set[Folder] = set()
    for stage in stages.in_order:
        recorded = records(stage)
        # A stage plans its units from the tables and JSON files that earlier stages wrote, so such
        # a file that is damaged makes every later plan wrong.
        if not any(damage.path.endswith(PLANNED_FROM) for damage in verification.damages):
            current = plan(stage)
            summaries.append(current.up_to_date(stage))
            for unit in current.todo:
                if why := why_stale(stage, unit, current.last_records.get(unit.name)):
                    verification.damages.append(Damage("not-done", stage.name, unit.name, "", why))
                    recorded.pop(unit.name, None)
            written |= {stage.folder / name for unit in current.units for name in unit.outputs}
            planned = {unit.name for unit in current.units}
            recorded = {name: record for name, record in recorded.items() if name in planned}
        verification.damages += _check_files(stages, stage, recorded, verification, progress)
    if not verification.damages:
        verification.damages += _check_results(stages, summaries)
    verification.damages += _leftovers(stages, written)
    return verification


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
    recorded: dict[str, Record],
    verification: Verification,
    progress: Progress,
) -> list[Damage]:
    """Read the files of a stage and return the damaged files.

    Args:
        stages: all stages of the data set.
        stage: the stage whose files are read.
        recorded: the record of every unit whose files are read.
        verification: counts the files and bytes.
        progress: told of every file.
    """
    files = [(unit, output) for unit, record in recorded.items() for output in record.outputs]
    damages = []
    progress.start(f"verify {stage.name}", len(files), "files")

    def check(output: Output) -> str:
        return _why_damaged(stage.folder / output.path, output)

    try:
        with ThreadPoolExecutor(usable_cores()) as pool:
            reasons = pool.map(check, (output for _, output in files))
            for (unit, output), reason in zip(files, reasons, strict=True):
                if reason:
                    path = name_in(stages.folder, stage.folder / output.path)
                    kind = _kind(stage.folder / output.path, reason)
                    damages.append(Damage(kind, stage.name, unit, path, reason))
                verification.files += 1
                verification.bytes += output.size
                progress.advance()
    finally:
        progress.stop()
    return damages


def _why_damaged(path: Folder, output: Output) -> str:
    reason = why_damaged(path, output, rehash=True)
    if reason and isinstance(path, Path) and path.is_symlink():
        change = "has changed since prepare" if path.exists() else "is gone"
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


def _leftovers(stages: DatasetStages, planned: set[Folder]) -> Iterator[Damage]:
    """Find the scratch files of a killed run, and the files among the outputs that nobody knows.

    Args:
        stages: all stages of the data set.
        planned: the files that units write, also units that are not done yet.
    """
    scratch: set[Folder] = {*stages.folder.glob("state/partial/**/*")}
    scratch |= {*filter(is_partial, stages.folder.rglob(".*.partial"))}
    found: set[Folder] = {*scratch}
    for stage in stages.in_order:
        if stage.prunes:
            outputs = (output for record in records(stage).values() for output in record.outputs)
            recorded = {stage.folder / output.path for output in outputs}
            found |= {*stage.folder.rglob("*")} - recorded - planned
    for path in sorted(found, key=str):
        if path.is_file():
            kind: Kind = "left-over" if path in scratch else "unknown"
            reason = "is left over" if path in scratch else "was not written by avsnn"
            name = name_in(stages.folder, path)
            yield Damage(kind, "", "", name, reason, path.stat().st_size)
