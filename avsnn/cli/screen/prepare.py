"""What `prepare`, `verify`, `repair` and `clean` print: plan, stages, damage, what can go."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from avsnn.cli.screen.console import format_bytes, out

if TYPE_CHECKING:
    from pathlib import Path

    from avsnn.pipeline.engine.journal import StageCounts
    from avsnn.pipeline.engine.plan import Plan
    from avsnn.pipeline.engine.stage import Stage
    from avsnn.pipeline.formats.prepared_json import Prepared
    from avsnn.pipeline.prepare.build_stages import DatasetStages
    from avsnn.pipeline.prepare.clean import CleanPlan
    from avsnn.pipeline.prepare.estimate import Estimate
    from avsnn.pipeline.prepare.verify import Damage, Verification

UNITS_PER_REASON = 3

# A lost store or folder may have thousands of damages.
DAMAGES_SHOWN = 20


def print_plan(stages: DatasetStages, planned: list[tuple[Stage, Plan]], cost: Estimate) -> None:
    """Print the units that prepare would do, and the bytes and the time that the units cost."""
    table = Table(title=f"{stages.manifest.name}: plan", title_justify="left")
    for heading in ("stage", "units", "done", "to do", "failed"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    waiting = False
    for stage, plan in planned:
        if waiting:
            table.add_row(stage.name, "", "", "known later", "")
            continue
        todo = plan.todo_count
        counts = (plan.unit_count, plan.unit_count - todo, todo, plan.up_to_date.failed)
        table.add_row(stage.name, *(f"{count:,}" for count in counts))
        # The units of a stage follow from the files that the stage before it writes.
        waiting = todo > 0
    out.print(table)
    _print_cost(stages, cost)


def _print_cost(stages: DatasetStages, cost: Estimate) -> None:
    at_least = "" if cost.sizes_known else "at least "
    missing = format_bytes(cost.fetch_bytes) if cost.sizes_known else "files of unknown size"
    out.print(
        f"{missing} to fetch into {stages.folder}; {at_least}{format_bytes(cost.disk_bytes)} of "
        f"disk space needed, {format_bytes(cost.free_bytes)} free. "
        f"{cost.decode:,} clips to decode; {cost.cache:,} clips to compute for the caches."
    )
    if cost.seconds:
        duration = f"{cost.seconds:.0f} s"
        if cost.seconds >= 100:
            duration = f"{cost.seconds / 60:,.0f} min"
        downloads = (
            ", if downloads reach 10 MB/s" if cost.sizes_known else ", without the downloads"
        )
        if stages.manifest.generated:
            downloads = ", without generating the files"
        elif stages.fetch.source is not None:
            downloads = ""
        out.print(f"Estimated time: {duration}{downloads}.")


def print_reasons(changed: list[str], planned: list[tuple[Stage, Plan]]) -> None:
    """Print why units have to be done: changed settings, then the units of every reason."""
    for change in changed:
        out.print(change)
    for stage, plan in planned:
        first: dict[str, list[str]] = {}
        counts: Counter[str] = Counter()
        for name, reason in plan.reasons():
            counts[reason] += 1
            if counts[reason] <= UNITS_PER_REASON:
                first.setdefault(reason, []).append(name)
        for reason, names in first.items():
            hidden = counts[reason] - len(names)
            more = f" and {hidden:,} more" if hidden else ""
            out.print(f"{stage.name}: {', '.join(names)}{more}: {reason}")
        if plan.todo_count:
            # Later stages are planned from the files of this stage, which are not written yet.
            return
    if not any(plan.todo_count for _, plan in planned):
        out.print("nothing to do.")


def print_stage_counts(dataset: str, rows: list[StageCounts]) -> None:
    """Print one row per stage; inputs = written + skipped + failed."""
    table = Table(
        title=f"{dataset}: stages", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("stage", no_wrap=True)
    for heading in ("inputs", "written", "skipped", "failed", "done now", "size", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.stage,
            *(f"{count:,}" for count in (row.inputs, row.written, row.skipped, row.failed)),
            f"{row.units_done_now:,}",
            format_bytes(row.bytes),
            f"{row.seconds:.1f}",
        )
    if rows:
        out.print(table)


def print_prepared(folder: Path, prepared: Prepared, rows: list[StageCounts]) -> None:
    """Print how many clips are ready in `folder`, and where the reasons of failures are."""
    if not any(row.units_done_now for row in rows):
        out.print(f"{prepared.dataset}: nothing to do; everything was prepared before.")
    store, _, _ = prepared.shards.rpartition("/shards/")
    place = f"{folder}, with shards and caches in {store}" if "://" in store else f"{folder}"
    out.print(f"{prepared.dataset}: {prepared.clips:,} clips are ready in {place}.")
    if prepared.failed:
        what = "1 input" if prepared.failed == 1 else f"{prepared.failed:,} inputs"
        out.print(f"{what} failed; reasons: {folder / 'failures.jsonl'}")
    for note in prepared.notes:
        out.print(f"{prepared.dataset}: note: {note}.")


def print_damage(dataset: str, verification: Verification) -> None:
    """Print a table of the first damages that verify found, or a sentence that there are none."""
    if not verification.damages:
        out.print(
            f"{dataset}: {verification.files:,} files, {format_bytes(verification.bytes)}: "
            "all as they were written."
        )
        return
    table = Table(title=f"{dataset}: damage", title_justify="left")
    for heading in ("stage", "unit", "file", "what is wrong"):
        table.add_column(heading, overflow="fold")
    for damage in verification.damages[:DAMAGES_SHOWN]:
        table.add_row(damage.stage, damage.unit, damage.path, damage.reason)
    out.print(table)
    if (more := len(verification.damages) - DAMAGES_SHOWN) > 0:
        out.print(f"{dataset}: and {more:,} more; 'avsnn verify {dataset} --json' names all.")


def print_unknown_files(dataset: str, folder: Path, files: list[Damage]) -> None:
    """Print the files that avsnn did not write, with their sizes."""
    total = format_bytes(sum(file.bytes for file in files))
    out.print(f"{dataset}: avsnn did not write these files in {folder} ({len(files):,}, {total}):")
    for file in files:
        out.print(f"  {file.path} ({format_bytes(file.bytes)})")


def print_clean_plan(dataset: str, plan: CleanPlan) -> None:
    """Print a table of what clean can remove, and what stays although nothing needs it."""
    if plan.unneeded:
        table = Table(
            title=f"{dataset}: not needed", title_justify="left", box=box.SIMPLE_HEAD,
            pad_edge=False,
        )  # fmt: skip
        table.add_column("folder", overflow="fold")
        table.add_column("size", justify="right", no_wrap=True)
        table.add_column("why")
        for one in plan.unneeded:
            table.add_row(one.name, format_bytes(one.bytes), one.reason)
        out.print(table)
        out.print(
            f"{dataset}: {format_bytes(plan.bytes)} in {plan.folder} can be removed; "
            "'avsnn prepare' with the earlier settings would make them again."
        )
    else:
        out.print(f"{dataset}: nothing to remove in {plan.folder}.")
    for phrase in plan.left:
        out.print(f"{dataset}: {phrase}.")
