"""What `datasets` and `datasets check` print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from avsnn.cli.screen.console import format_bytes, out
from avsnn.cli.streams import printable

if TYPE_CHECKING:
    from avsnn.pipeline.prepare.split_check import PlacedClip, SplitCheck

# The screen lists so many sets of identical files, and so many clips of a set; --json lists all.
IDENTICAL_SETS_LISTED, IDENTICAL_CLIPS_LISTED = 10, 8


def print_datasets(rows: list[dict[str, Any]]) -> None:
    """Print facts about every data set, and how much of the data set is prepared here."""
    for row in rows:
        if row["fault"]:
            out.print(f"{row['name']} cannot be used: {row['fault']}", markup=False)
            out.print()
            continue
        splits = (
            f"{split} (default)" if split == row["default_split"] else split
            for split in row["splits"]
        )
        prepared = f"{row['prepared_clips']:,} clips, {format_bytes(row['prepared_bytes'])}"
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, text in {
            "": row["description"],
            "size": _size_of_dataset(row),
            "classes": ", ".join(row["classes"]),
            "splits": ", ".join(splits),
            "licence": row["licence"],
            "homepage": row["homepage"] or "none",
            "prepared here": prepared if row["prepared_clips"] else "no",
        }.items():
            table.add_row(name, text)
        heading = Text(printable(row["name"]), style="bold")
        out.print(heading.append(f": {printable(row['title'])}", style="not bold"))
        out.print(table)
        out.print()


def _size_of_dataset(row: dict[str, Any]) -> str:
    if not row["clips"] and row["published_clips"]:
        return f"{row['published_clips']:,} clips as published"
    if not row["clips"]:
        return "known after prepare has found the files"
    size = "generated on this machine" if row["generated"] else "of unknown size"
    return f"{row['clips']:,} clips, {format_bytes(row['bytes']) if row['bytes'] else size}"


def print_split_check(found: SplitCheck) -> None:
    """Print the clips of every part of a split, what the parts share, and bad clips."""
    out.print(_table_of_clips(found))
    out.print(_table_of_shared_clips(found))
    for kind, clips in found.identical[:IDENTICAL_SETS_LISTED]:
        names = [*map(_describe_clip, clips[:IDENTICAL_CLIPS_LISTED])]
        if (more := len(clips) - IDENTICAL_CLIPS_LISTED) > 0:
            names.append(f"{more:,} more")
        out.print(f"identical {kind}: {' = '.join(names)}")
    hidden = len(found.identical) - IDENTICAL_SETS_LISTED
    if hidden > 0:
        out.print(f"and {hidden:,} more sets of identical files; --json lists all.")
    for clip, reason in found.known_bad:
        out.print(f"known to be bad: {_describe_clip(clip)}: {reason}")
    if found.unchecked:
        out.print(f"{found.unchecked:,} files have no known checksum before prepare fetches them.")
    if found.disagreeing:
        out.print(
            f"{found.disagreeing:,} clips are prepared here with another part, class or group "
            f"than the manifest says: run 'avsnn prepare {found.dataset}' again."
        )


def _table_of_clips(found: SplitCheck) -> Table:
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


def _table_of_shared_clips(found: SplitCheck) -> Table:
    table = Table(title="shared between parts", title_justify="left")
    table.add_column("part")
    for row in found.shared:
        table.add_column(row.part, justify="right")
    table.add_row("compared with", *(" and ".join(row.seen) for row in found.shared))
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


def _describe_clip(clip: PlacedClip) -> str:
    return f"{clip.key} ({clip.label}, {clip.part})"
