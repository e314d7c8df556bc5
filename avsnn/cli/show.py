"""Tables, sentences and progress. Results go to stdout, how it is going to stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from avsnn.models.zoo import AuthorsState
    from avsnn.pipeline.engine.journal import StageCounts
    from avsnn.pipeline.engine.plan import Plan
    from avsnn.pipeline.engine.stage import Stage
    from avsnn.pipeline.evaluation.measures import Evaluation
    from avsnn.pipeline.experiments.tables import ReproducedTable
    from avsnn.pipeline.formats.prepared import Prepared
    from avsnn.pipeline.prepare.build import DatasetStages
    from avsnn.pipeline.prepare.estimate import Estimate
    from avsnn.pipeline.prepare.split_check import PlacedClip, SplitCheck
    from avsnn.pipeline.prepare.verify import Verification
    from avsnn.pipeline.runs.config import RunConfig
    from avsnn.pipeline.training.train import TrainingResult

out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=not sys.stderr.isatty())

LINES_PER_STAGE = 10
# More than these are for --json.
LISTED = 10

PEEKED = "; chosen on the test part itself, as the published numbers were"


class Bar:
    """A live bar with rate and time left, for a terminal."""

    def start(self, title: str, total: int, unit: str) -> None:
        """Shows the bar."""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=err,
            transient=True,
        )
        self._task = self._bar.add_task(title, total=total, unit=unit, note="", rate="")
        self._bar.start()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Moves it."""
        self._bar.advance(self._task, count)
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, note=note, rate=f"{speed:,.1f}/s" if speed else "")

    def stop(self) -> None:
        """Removes it; what it did is said otherwise."""
        self._bar.stop()


class Lines:
    """A plain line per tenth of the work, for a log."""

    def start(self, title: str, total: int, unit: str) -> None:
        """Begins to count."""
        self._title, self._total, self._unit = title, total, unit
        self._done, self._began = 0, time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Prints a line where a tenth is full."""
        before, self._done = self._done, self._done + count
        if self._done * LINES_PER_STAGE // self._total > before * LINES_PER_STAGE // self._total:
            rate = self._done / max(1e-9, time.monotonic() - self._began)
            left = (self._total - self._done) / rate
            err.print(
                f"{self._title}: {self._done:,} of {self._total:,} {self._unit}, "
                f"{rate:,.1f}/s, {left:.0f} s left{', ' if note else ''}{note}"
            )

    def stop(self) -> None:
        """Nothing to remove."""


class Quiet:
    """Nothing, where a log gets its lines elsewhere."""

    def start(self, title: str, total: int, unit: str) -> None:
        """Silent."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Silent."""

    def stop(self) -> None:
        """Silent."""


def progress(*, lines: bool = True) -> Bar | Lines | Quiet:
    """A bar on a terminal; elsewhere lines, or nothing where ``lines`` is off."""
    if is_follower():
        return Quiet()
    if err.is_terminal:
        return Bar()
    return Lines() if lines else Quiet()


def say(sentence: str) -> None:
    """One line about how it is going."""
    err.print(sentence)


def is_follower() -> bool:
    """Whether torchrun started this process beside one that speaks for all."""
    return os.environ.get("RANK", "0") != "0"


def as_json(value: Any) -> None:
    """JSON for machines."""
    print(json.dumps(value, indent=1))


def plan(stages: DatasetStages, planned: list[tuple[Stage, Plan]], cost: Estimate) -> None:
    """What prepare would do."""
    table = Table(title=f"{stages.manifest.name}: plan", title_justify="left")
    for heading in ("stage", "units", "done", "to do", "failed"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    waiting = False
    for stage, current in planned:
        if waiting:
            table.add_row(stage.name, "", "", "known later", "")
            continue
        todo = len(current.todo)
        counts = (len(current.units), len(current.units) - todo, todo)
        failed = current.up_to_date(stage).failed
        table.add_row(stage.name, *(f"{n:,}" for n in (*counts, failed)))
        waiting = todo > 0
    out.print(table)
    folder = next(
        path for path in (stages.folder, *stages.folder.absolute().parents) if path.exists()
    )
    known = stages.fetch.clips or not stages.discover
    wanted = size(cost.fetch_bytes) if known else "files yet to be found"
    out.print(
        f"{wanted} to fetch into {stages.folder}; {size(cost.disk_bytes)} needed there, "
        f"{size(shutil.disk_usage(folder).free)} free. {cost.clips:,} clips to decode."
    )
    if cost.seconds:
        how_long = f"{cost.seconds:.0f} s"
        if cost.seconds >= 100:
            how_long = f"{cost.seconds / 60:,.0f} min"
        out.print(f"Roughly {how_long}, where downloads come at 10 MB/s.")


def reasons(changed: list[str], planned: list[tuple[Stage, Plan]]) -> None:
    """Why units have to be done, those with one reason together."""
    for change in changed:
        out.print(f"changed since the last prepare: {change}")
    for stage, current in planned:
        units: dict[str, list[str]] = {}
        for name, why in current.reasons.items():
            units.setdefault(why, []).append(name)
        for why, names in units.items():
            more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
            out.print(f"{stage.name}: {', '.join(names[:3])}{more}: {why}")
        if current.todo:
            # What comes after it is planned from what it leaves.
            return
    if not any(current.todo for _, current in planned):
        out.print("nothing to do.")


def verification(stages: DatasetStages, found: Verification) -> None:
    """What a verification found."""
    if found.damages:
        table = Table(title=f"{stages.manifest.name}: damage", title_justify="left")
        for heading in ("stage", "unit", "file", "what is wrong"):
            table.add_column(heading, overflow="fold")
        for damage in found.damages:
            table.add_row(damage.stage, damage.unit, damage.path, damage.reason)
        out.print(table)
    else:
        out.print(
            f"{stages.manifest.name}: {found.files:,} files, {size(found.bytes)}: "
            "all as they were written."
        )


def summaries(dataset: str, rows: list[StageCounts]) -> None:
    """What every stage did; inputs = written + skipped + failed."""
    table = Table(
        title=f"{dataset}: stages", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("stage", no_wrap=True)
    for heading in ("inputs", "written", "skipped", "failed", "done now", "size", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.stage,
            *(f"{n:,}" for n in (row.inputs, row.written, row.skipped, row.failed)),
            f"{row.units_done_now:,}",
            size(row.bytes),
            f"{row.seconds:.1f}",
        )
    if rows:
        out.print(table)


def prepared(folder: Path, result: Prepared, rows: list[StageCounts]) -> None:
    """Where it stands now."""
    if not any(row.units_done_now for row in rows):
        out.print(f"{result.dataset}: nothing to do, all of it was prepared before.")
    out.print(f"{result.dataset}: {result.clips:,} clips are ready in {folder}.")
    if result.failed:
        out.print(f"{result.failed:,} failed; reasons: {folder / 'failures.jsonl'}")


def trained(result: TrainingResult, config: RunConfig) -> None:
    """How a training ended."""
    if is_follower():
        return
    if not result.epochs:
        out.print(f"{result.folder}: nothing to do, this run was finished before.")
    part = config.settings.selection
    last = result.metrics[-1]
    rates = last["spike_rates"].values()
    chosen = "the last one, as asked"
    if part != "last":
        chosen = f"{part} accuracy {result.best[f'{part}_accuracy']:.2%}"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in {
        "run": f"{result.folder}",
        "epochs": f"{len(result.metrics)}, {result.epochs} of them now in {result.seconds:.0f} s",
        "last epoch": f"loss {last['loss']:.4f}, accuracy {last['accuracy']:.2%}, "
        f"{last['samples_per_second']:.0f} samples/s",
        "firing": f"{sum(rates) / len(rates):.1%} of neurons at a step, mean of {len(rates)} "
        f"layers; {sum(not rate for rate in rates)} silent",
        "best": f"epoch {result.best['epoch']} ({chosen}{PEEKED if part == 'test' else ''})",
    }.items():
        table.add_row(name, text)
    out.print(table)
    out.print(f"next: avsnn evaluate {result.folder}")


def evaluation(result: Evaluation, *, again: bool, page: Path) -> None:
    """The measures of one run."""
    table = Table(
        title=f"{result.run}: {result.part} part of {result.dataset}, split {result.split}",
        title_justify="left",
    )
    table.add_column("class")
    for heading in ("precision", "recall", "F1", "clips"):
        table.add_column(heading, justify="right")
    for row in result.classes:
        figures = (row.precision, row.recall, row.f1)
        table.add_row(row.name, *(f"{figure:.3f}" for figure in figures), f"{row.clips:,}")
    out.print(table)
    top5 = "" if result.top5 is None else f", top-5 {result.top5:.2%}"
    out.print(
        f"top-1 {result.top1:.2%}{top5}, loss {result.loss:.4f}, {result.clips:,} clips, "
        f"epoch {result.epoch} (chosen on {result.selection})"
        f"{PEEKED if result.selection == 'test' else ''}"
    )
    if again:
        out.print("measured before, on the same checkpoint; the data were not read again.")
    out.print(f"report: {page}")


def reproduction(found: ReproducedTable, written: Path | None) -> None:
    """A published table, as far as it is reproduced."""
    from avsnn.pipeline.experiments.tables import table_caption, table_cells, table_header

    table = Table(title=table_caption(found), title_justify="left")
    for number, heading in enumerate(table_header(found)):
        table.add_column(heading, justify="right" if number else "left")
    for line in found.lines:
        table.add_row(*table_cells(line, found.epochs_planned))
    out.print(table)
    missing = sum(value is None for line in found.lines for value in line.top1.values())
    if missing:
        out.print(f"{missing} runs to do.")
    if written is not None:
        base = written / f"{found.table}-{found.dataset}"
        out.print(f"written: {base}.md and {base}.json")


def datasets(found: list[dict[str, Any]]) -> None:
    """What exists."""
    for row in found:
        splits = (f"{s} (default)" if s == row["default_split"] else s for s in row["splits"])
        here = f"{row['prepared_clips']:,} clips, {size(row['prepared_bytes'])}"
        clips = f"{row['clips']:,} clips, {size(row['bytes']) if row['bytes'] else 'made here'}"
        if not row["clips"]:
            clips = "known once the files are found"
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, text in {
            "": row["description"],
            "size": clips,
            "classes": ", ".join(row["classes"]),
            "splits": ", ".join(splits),
            "licence": row["licence"],
            "home": row["homepage"] or "none",
            "prepared here": here if row["prepared_clips"] else "no",
        }.items():
            table.add_row(name, text)
        out.print(f"[bold]{row['name']}[/bold]: {row['title']}")
        out.print(table)
        out.print()


def checked(found: SplitCheck) -> None:
    """A split, taken apart."""
    out.print(_clips_by_part(found))
    out.print(_seen_before(found))
    for kind, clips in found.identical[:LISTED]:
        out.print(f"identical {kind}: {' = '.join(map(_placed, clips))}", markup=False)
    if len(found.identical) > LISTED:
        out.print(f"and {len(found.identical) - LISTED:,} more; --json lists all.")
    for clip, why in found.known_bad:
        out.print(f"known to be bad: {_placed(clip)}: {why}", markup=False)
    if found.unchecked:
        out.print(f"{found.unchecked:,} files have no known checksum before they are prepared.")
    if found.disagreeing:
        out.print(
            f"{found.disagreeing:,} clips are prepared here under another part, class or group: "
            f"run 'avsnn prepare {found.dataset}' again."
        )


def _clips_by_part(found: SplitCheck) -> Table:
    table = Table(title=f"{found.dataset}, split {found.split}: clips", title_justify="left")
    table.add_column("class")
    for part in found.clips:
        table.add_column(part, justify="right")
    counts = found.clips.values()
    for name in next(iter(counts)):
        table.add_row(name, *(f"{part[name]:,}" for part in counts))
    table.add_section()
    table.add_row("all", *(f"{sum(part.values()):,}" for part in counts))
    if found.groups is not None:
        table.add_row(f"{found.group}s", *(f"{count:,}" for count in found.groups.values()))
    if bad := [clip.part for clip, _ in found.known_bad]:
        table.add_row("known bad", *(f"{bad.count(part):,}" for part in found.clips))
    if found.prepared is not None:
        table.add_row("prepared here", *(f"{count:,}" for count in found.prepared.values()))
    return table


def _seen_before(found: SplitCheck) -> Table:
    table = Table(title="seen before", title_justify="left")
    table.add_column("of the clips in")
    for row in found.shared:
        table.add_column(row.part, justify="right")
    table.add_row("also in", *(" and ".join(row.seen) for row in found.shared))
    table.add_section()
    facts: dict[str, list[int | None]] = {
        f"{found.group}s shared": [row.groups for row in found.shared],
        f"clips of a shared {found.group}": [row.group_clips for row in found.shared],
        f"clips with the same {found.twins}": [row.twins for row in found.shared],
        "clips with an identical file": [row.identical for row in found.shared],
    }
    for name, counts in facts.items():
        if None not in counts:
            table.add_row(name, *(f"{count:,}" for count in counts))
    return table


def _placed(clip: PlacedClip) -> str:
    return f"{clip.key} ({clip.label}, {clip.part})"


def status(stages: list[dict[str, Any]], runs: list[dict[str, Any]]) -> None:
    """What is done."""
    if not stages:
        out.print("No data set was begun here; start with 'avsnn prepare demo'.")
    else:
        table = Table(title="stages", title_justify="left")
        for heading in ("data set", "stage"):
            table.add_column(heading)
        for heading in ("units done", "written", "skipped", "failed", "size"):
            table.add_column(heading, justify="right")
        for row in stages:
            table.add_row(
                row["dataset"],
                row["stage"],
                f"{row['done']:,} of {row['units']:,}" if row["units"] else "not yet known",
                *(f"{row[name]:,}" for name in ("written", "skipped", "failed")),
                size(row["bytes"]),
            )
        out.print(table)
    if runs:
        table = Table(title="runs", title_justify="left")
        for heading in ("run", "method", "epochs", "best epoch", "test"):
            table.add_column(heading, overflow="fold")
        for row in runs:
            best = row["best_accuracy"]
            table.add_row(
                row["run"],
                row["method"],
                f"{row['epochs']} of {row['epochs_planned']}",
                "" if best is None else f"{best:.2%} on {row['selection']}",
                "" if row["test_top1"] is None else f"{row['test_top1']:.2%}",
            )
        out.print(table)


def converted(found: AuthorsState, target: Path) -> None:
    """What a foreign checkpoint held."""
    model = found.settings
    out.print(
        f"{target}: {model.method}, C = {model.channels}, {found.classes} classes, "
        f"T = {model.steps}, {len(found.state)} tensors"
    )
    for name, keys in (("never called, dropped", found.dropped), ("unknown", found.unknown)):
        out.print(f"{len(keys)} keys {name}{': ' if keys else ''}{', '.join(keys)}")


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
