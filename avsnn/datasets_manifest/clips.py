"""The clips of a data set, and the reader of the CSV table that lists the clips."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

from avsnn.errors import UserError

Part = Literal["train", "val", "test"]
PARTS = ("train", "val", "test")

# The columns of every table. A table has one more column for each split that names a column.
COLUMNS = (
    *("key", "label", "group"),
    *("audio_path", "audio_sha256", "audio_bytes"),
    *("visual_path", "visual_sha256", "visual_bytes"),
)

# A key has no dot, because WebDataset ends the key of a sample at the first dot of a file name.
KEY = re.compile(r"[\w-]+")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class MediaFile:
    """A published file.

    Attributes:
        path: path below the data set's folder.
        sha256: SHA-256 of the bytes, in hexadecimal; None where nobody published a checksum.
        size: size in bytes; None where nobody published the size.
    """

    path: str
    sha256: str | None
    size: int | None


@dataclass(frozen=True)
class Clip:
    """A sample as published: an audio file and a visual file under one label.

    Attributes:
        key: name of the clip: letters, digits, ``_`` and ``-``.
        label: index of the class in ``Manifest.classes``.
        group: the speaker, actor or recording that the clip comes from.
        columns: the part of the clip, by the name of each table column that holds a split.
        audio: the audio file.
        visual: the image or the video.
    """

    key: str
    label: int
    group: str
    columns: dict[str, str]
    audio: MediaFile
    visual: MediaFile

    @property
    def files(self) -> tuple[MediaFile, MediaFile]:
        """The audio file and the visual file, in this order."""
        return (self.audio, self.visual)


def read_table(
    content: bytes, *, name: str, class_count: int, part_columns: Sequence[str]
) -> tuple[Clip, ...]:
    """Read the clips of a table, in the order of the rows.

    Args:
        content: the table: a CSV file with a header and one row per clip.
        name: name of the table in error messages.
        class_count: number of classes; a label is smaller than this number.
        part_columns: names of the columns that hold the parts of a split.

    Raises:
        UserError: a column is missing, a row is cut off, a value is not allowed, a path leaves the
            data set's folder, or a key occurs twice.
    """
    rows = csv.reader(content.decode().splitlines())
    header = next(rows, [])
    missing = [column for column in (*COLUMNS, *part_columns) if column not in header]
    if missing:
        raise UserError(f"{name}: has no column {missing[0]!r}; restore the file.")
    # A table has thousands of rows, and every command reads the table. Values by position are
    # read faster than values by name.
    values_of = itemgetter(*map(header.index, COLUMNS))
    part_positions = {column: header.index(column) for column in part_columns}
    clips = tuple([_clip(row, values_of, part_positions, name, class_count) for row in rows])
    if len({clip.key for clip in clips}) != len(clips):
        twice = Counter(clip.key for clip in clips).most_common(1)[0][0]
        raise UserError(f"{name}: key {twice} occurs twice; every clip needs a key of its own.")
    return clips


def _clip(
    row: list[str],
    values_of: Callable[[list[str]], tuple[str, ...]],
    part_positions: Mapping[str, int],
    table: str,
    class_count: int,
) -> Clip:
    try:
        key, label, group, *media = values_of(row)
        parts = {column: row[position] for column, position in part_positions.items()}
    except IndexError:
        raise UserError(f"{table}: a row is cut off after {','.join(row)!r}.") from None
    if not label.isdecimal() or int(label) >= class_count:
        raise UserError(f"{table}: clip {key}: label {label} is no class.")
    if not all(part in PARTS for part in parts.values()):
        raise UserError(f"{table}: clip {key}: a part is train, val or test, not {parts}.")
    if not KEY.fullmatch(key):
        raise UserError(f"{table}: key {key!r} is not letters, digits, _ and -.")
    return Clip(
        key=key,
        label=int(label),
        group=group,
        columns=parts,
        audio=_media_file(*media[:3], table=table),
        visual=_media_file(*media[3:], table=table),
    )


def _media_file(path: str, sha256: str, size: str, *, table: str) -> MediaFile:
    if (sha256 and not SHA256.fullmatch(sha256)) or (size and not size.isdecimal()):
        raise UserError(f"{table}: the checksum or the size of {path} is not valid.")
    _require_path_inside(path, table)
    return MediaFile(path=path, sha256=sha256 or None, size=int(size) if size else None)


def _require_path_inside(path: str, table: str) -> None:
    """Refuse a path that could name a file outside the folder to which the path is joined.

    Raises:
        UserError: the path is absolute, empty or of Windows, or has ``.`` or ``..`` as a part.
    """
    plain = path.isprintable() and not {"", ".", ".."}.intersection(path.split("/"))
    if not plain or "\\" in path or ":" in path:
        raise UserError(f"{table}: {path!r} is not a path inside the data set's folder.")
