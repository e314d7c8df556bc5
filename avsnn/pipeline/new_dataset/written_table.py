"""The CSV table of a new data set, and the changes of the table when the folder has changed."""

import csv
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO

from avsnn.datasets_manifest import Clip, Manifest
from avsnn.datasets_manifest.clips import composed
from avsnn.datasets_manifest.csv_rows import read_rows
from avsnn.datasets_manifest.split_rules import ColumnSplit
from avsnn.pipeline.new_dataset.draft import Draft
from avsnn.pipeline.new_dataset.names import make_keys
from avsnn.pipeline.new_dataset.split_choice import PART_COLUMN
from avsnn.pipeline.new_dataset.user_tables import decode_table


@dataclass(frozen=True)
class Table:
    """A table of clips.

    Attributes:
        header: names of the columns.
        rows: value of every column, for each clip.
        new: number of clips that the earlier table did not have.
        gone: number of clips of the earlier table that are not there any more.
        changed: number of clips of the earlier table with other values now.
        labels: the classes of the clips that are new or changed.
    """

    header: list[str]
    rows: list[dict[str, str]]
    new: int = 0
    gone: int = 0
    changed: int = 0
    labels: frozenset[str] = frozenset()

    @property
    def is_changed(self) -> bool:
        """Whether any clip differs from the earlier table."""
        return bool(self.new or self.gone or self.changed)

    @property
    def content(self) -> bytes:
        """The bytes of the CSV file."""
        text = StringIO(newline="")
        writer = csv.DictWriter(text, self.header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue().encode()


def first_table(drafts: Sequence[Draft]) -> Table:
    """Return the table of clips that have no table yet, with the columns that the clips need."""
    keys = make_keys([draft.place for draft in drafts], {})
    has = {
        "group": any(draft.group for draft in drafts),
        PART_COLUMN: any(draft.part for draft in drafts),
    }
    columns = ("key", "label", "group", PART_COLUMN, "audio_path", "visual_path")
    header = [column for column in columns if has.get(column, True)]
    rows = [_row(draft, keys[draft.place]) for draft in drafts]
    return Table(header, [{column: row[column] for column in header} for row in rows])


def _row(draft: Draft, key: str) -> dict[str, str]:
    return {
        "key": key,
        "label": draft.label,
        "group": draft.group or key,
        PART_COLUMN: draft.part,
        "audio_path": draft.audio,
        "visual_path": draft.visual,
    }


def update_table(
    earlier: Manifest, drafts: Sequence[Draft], *, takes: Sequence[str], there: Container[str]
) -> Table:
    """Return the table of the clips that are there now, on the ground of the earlier table.

    A clip that is in the earlier table keeps its key and everything that a person corrected. New
    clips of a folder get the class that most earlier clips of the folder have.

    Args:
        earlier: the data set so far.
        drafts: the clips that are there now.
        takes: columns whose new values replace the earlier values.
        there: the paths of all files that are there.
    """
    header, *lines = read_rows(decode_table(earlier.table_bytes, earlier.name), earlier.name)
    header = [column.strip() for column in header]
    earlier_of: dict[str, tuple[Clip, dict[str, str]]] = {}
    rows: list[dict[str, str]] = []
    for clip, line in zip(earlier.clips, lines, strict=True):
        row = dict(zip(header, line, strict=False))
        if earlier_of.setdefault(composed(clip.visual.recording), (clip, row))[1] is not row:
            # A person wrote another clip of the same video or image.
            rows += [row] * (clip.visual.path in there and clip.audio.path in there)
    header = _with_columns(header, takes)
    drafts_of = {composed(draft.visual): draft for draft in drafts}
    for visual, (clip, row) in earlier_of.items():
        is_there = clip.visual.path in there and clip.audio.path in there
        if visual not in drafts_of and is_there:
            rows.append(row)
    label_of = _classes_of_folders(earlier, drafts, earlier_of)
    known = {
        draft.place: earlier_of[visual][0].key
        for visual, draft in drafts_of.items()
        if visual in earlier_of
    }
    # A key of a clip that stays in the table without a draft is taken, too.
    keys = make_keys([draft.place for draft in drafts], known, taken=[row["key"] for row in rows])
    changed, labels = 0, set()
    for visual, draft in drafts_of.items():
        now = _row(draft, keys[draft.place])
        if visual not in earlier_of:
            now["label"] = label_of.get(draft.label, draft.label)
            labels.add(now["label"])
            parts = dict.fromkeys(_part_columns(earlier), draft.part or "train")
            rows.append({column: (parts | now).get(column, "") for column in header})
            continue
        clip, row = earlier_of[visual]
        wanted = {column: now[column] for column in ("audio_path", "visual_path", *takes)}
        if draft.label == earlier.classes[clip.label]:
            wanted.pop("label", None)
        labels |= {wanted["label"]} if "label" in wanted else set()
        rows.append(row | wanted)
        changed += rows[-1] != row
    order = {clip.key: number for number, clip in enumerate(earlier.clips)}
    rows.sort(key=lambda row: order.get(row["key"], len(order)))
    gone = len(earlier.clips) - sum(row["key"] in order for row in rows)
    new = sum(row["key"] not in order for row in rows)
    return Table(header, rows, new=new, gone=gone, changed=changed, labels=frozenset(labels))


def _with_columns(header: Sequence[str], columns: Sequence[str]) -> list[str]:
    missing = [column for column in columns if column not in header]
    place = header.index("label") + 1
    return [*header[:place], *missing, *header[place:]]


def _part_columns(manifest: Manifest) -> list[str]:
    return [rule.column for rule in manifest.splits.values() if isinstance(rule, ColumnSplit)]


def _classes_of_folders(
    earlier: Manifest,
    drafts: Sequence[Draft],
    earlier_of: Mapping[str, tuple[Clip, dict[str, str]]],
) -> dict[str, str]:
    """Return the class that most earlier clips have, by the class that the folders name."""
    counts: dict[str, Counter[str]] = {}
    for draft in drafts:
        if composed(draft.visual) in earlier_of:
            label = earlier.classes[earlier_of[composed(draft.visual)][0].label]
            counts.setdefault(draft.label, Counter())[label] += 1
    return {folder: found.most_common(1)[0][0] for folder, found in counts.items()}
