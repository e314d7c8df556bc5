"""The clips of a data set, and the reader of the CSV table that lists the clips."""

import codecs
import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from operator import itemgetter
from typing import Literal

from avsnn.errors import UserError
from avsnn.suggestions import did_you_mean

Part = Literal["train", "val", "test"]
PARTS = ("train", "val", "test")
# What a clip shows and what a clip sounds like.
Modality = Literal["audio", "visual"]
# What stands in place of a part where a split leaves a clip out.
NO_PART = "none"

# The columns of a table, in the order in which avsnn writes them. A table has one more column for
# each split that names a column.
COLUMNS = (
    *("key", "label", "group"),
    *("audio_path", "audio_sha256", "audio_bytes"),
    *("visual_path", "visual_sha256", "visual_bytes"),
)
REQUIRED_COLUMNS = ("key", "label", "audio_path", "visual_path")

# A key has no dot, because WebDataset ends the key of a sample at the first dot of a file name.
KEY = re.compile(r"[\w-]+")
SHA256 = re.compile(r"[0-9a-f]{64}")
# Python converts no text of thousands of digits, and would take the digits of every script.
NUMBER = re.compile(r"[0-9]{1,18}")

# Encodings by the mark at the start of a file, longest mark first: the mark of UTF-16 starts the
# mark of UTF-32.
ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
    (codecs.BOM_UTF8, "UTF-8-SIG"),
)
# What spreadsheets put between the fields of a table.
SEPARATORS = (",", ";", "\t")
# The end of the name of a file that holds many recordings.
CONTAINER = re.compile(r"(\.zip|\.hdf5|\.h5)/")
# A message quotes no more characters of a value than this.
QUOTED_CHARACTERS = 40


def require_part(part: str) -> None:
    """Refuse a part that no split has.

    Raises:
        UserError: there is no such part.
    """
    if part not in PARTS:
        raise UserError(f"part cannot be {part!r}: there are {', '.join(PARTS)}.")


@dataclass(frozen=True)
class MediaFile:
    """A published file.

    Attributes:
        path: path below the data set's folder.
        sha256: SHA-256 of the bytes, in hexadecimal; None where nobody published a checksum.
        size: size in bytes; None where nobody published the size.
        member: name of the recording in the file; empty where the file is the recording.
        md5: MD5 of the bytes as published, in hexadecimal; None where nobody published an MD5.
        packed_as: path of the archive that was published in place of the file, a zip or a gzip with
            the file inside; empty where the file itself was published.
    """

    path: str
    sha256: str | None
    size: int | None
    member: str = ""
    md5: str | None = None
    packed_as: str = ""

    @property
    def recording(self) -> str:
        """Path of the recording: the path of the file, followed by the member."""
        return f"{self.path}/{self.member}" if self.member else self.path

    @property
    def published_path(self) -> str:
        """Path of the bytes that were published: of the archive, or of the file."""
        return self.packed_as or self.path

    @property
    def has_checksum(self) -> bool:
        """Whether somebody published a checksum of the file."""
        return self.sha256 is not None or self.md5 is not None


def split_recording(path: str) -> tuple[str, str]:
    """Split the path of a recording into the path of its file and the name in the file.

    The name is empty where the file is the recording.
    """
    file, suffix, member = CONTAINER.split(path, 1) if CONTAINER.search(path) else (path, "", "")
    return file + suffix, member


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
    content: bytes,
    *,
    name: str,
    classes: Sequence[str],
    part_columns: Sequence[str],
    needs_groups: bool = False,
    holds_recordings: bool = False,
    labels_are_numbers: bool = False,
) -> tuple[Clip, ...]:
    """Read the clips of a table, in the order of the rows; empty rows are skipped.

    Args:
        content: the table: a CSV file with a header and one row per clip. The fields are separated
            by commas, semicolons or tabs. The encoding is UTF-8, or the encoding that the mark at
            the start of the file names.
        name: name of the table in error messages.
        classes: names of the classes, in the order of their labels.
        part_columns: names of the columns that hold the parts of a split.
        needs_groups: whether the column ``group`` is required; without the column, every clip is a
            group of its own.
        holds_recordings: whether a path may go on inside a file that holds many recordings.
        labels_are_numbers: whether every label is the index of a class, also where a class has a
            number as its name.

    Raises:
        UserError: the table is not text in such an encoding, a column is missing, there is no row,
            a row is cut off or too long, a value is not allowed, a path leaves the data set's
            folder, or a key occurs twice.
    """
    header, *rows = [*read_rows(_decode(content, name), name)] or [[]]
    header = [column.strip() for column in header]
    required = (*REQUIRED_COLUMNS, *(["group"] * needs_groups), *part_columns)
    if missing := [column for column in required if column not in header]:
        near = did_you_mean(missing[0], [_short(column) for column in header])
        raise UserError(f"{name}: has no column {missing[0]!r}; {near}add the column.")
    texts = {row[header.index("label")] for row in rows if len(row) > header.index("label")}
    labels = _labels_of(texts, () if labels_are_numbers else classes, len(classes))
    reader = _RowReader(name, header, part_columns, classes, labels)
    clips = [reader.clip(row) for row in rows]
    if holds_recordings:
        clips = [
            replace(clip, audio=_in_its_file(clip.audio), visual=_in_its_file(clip.visual))
            for clip in clips
        ]
    if not clips:
        raise UserError(f"{name}: has no clips; add a row for each clip.")
    if len({clip.key for clip in clips}) != len(clips):
        twice = Counter(clip.key for clip in clips).most_common(1)[0][0]
        raise UserError(f"{name}: key {twice} occurs twice; every clip needs a key of its own.")
    return tuple(clips)


def composed(text: str) -> str:
    """Return a text in the normal form NFC, in which one character of Unicode is one letter.

    macOS gives names of files in the form NFD, in which an accent is a character of its own.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _labels_of(found: set[str], names: Sequence[str], class_count: int) -> dict[str, int]:
    """Return the index of the class for each text of the column ``label`` that means a class.

    Where all texts are indices and not all are names, all are indices: of classes that are called
    1, 2 and 3, the labels 0, 1 and 2 are indices.

    Args:
        found: the texts in the column.
        names: names of the classes that the texts may be, in the order of the classes.
        class_count: number of classes.
    """
    index_of = {composed(name): index for index, name in enumerate(names)}
    by_name = {text: index_of[name] for text in found if (name := composed(text)) in index_of}
    by_number = {
        text: int(text) for text in found if NUMBER.fullmatch(text) and int(text) < class_count
    }
    return by_number if len(by_number) == len(found) > len(by_name) else by_number | by_name


def _decode(content: bytes, name: str) -> str:
    """Return the text of a table.

    Raises:
        UserError: the bytes are no text in UTF-8, or in the encoding that the mark at the start of
            the file names.
    """
    encoding = next((found for mark, found in ENCODINGS if content.startswith(mark)), "UTF-8")
    advice = "save the file as UTF-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if not encoding.startswith("UTF-8"):
            raise UserError(
                f"{name}: is {encoding} by its first bytes, and is cut or damaged; {advice}."
            ) from None
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start : error.start + 1]
        raise UserError(
            f"{name}: line {line} is not UTF-8 (byte 0x{byte.hex()}, which is "
            f"{byte.decode('latin-1')!r} in Latin-1); {advice}."
        ) from None
    if encoding == "UTF-8" and "\0" in text[:2]:
        raise UserError(f"{name}: looks like UTF-16 without a byte order mark; {advice}.")
    return text


def read_rows(text: str, name: str) -> Iterator[list[str]]:
    """Yield the rows of a table that are not empty.

    Raises:
        UserError: the text is no CSV.
    """
    first_line = text.partition("\n")[0]
    separator = max(SEPARATORS, key=first_line.count)
    # Without newline="", the reader would lose the line break inside a quoted text.
    rows = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for row in rows:
            if any(row):
                yield row
    except csv.Error as error:
        raise UserError(f"{name}: line {rows.line_num}: {error}; mend the line.") from None


class _RowReader:
    """Makes a clip of every row of a table, and refuses rows with a mistake.

    Args:
        table: name of the table in error messages.
        header: names of the columns.
        part_columns: names of the columns that hold the parts of a split.
        classes: names of the classes, in the order of their labels.
        labels: index of the class for each text of the column ``label`` that means a class.
    """

    def __init__(
        self,
        table: str,
        header: Sequence[str],
        part_columns: Sequence[str],
        classes: Sequence[str],
        labels: Mapping[str, int],
    ) -> None:
        self._table, self._classes, self._labels = table, classes, labels
        self._fields = len(header)
        self._has_groups = "group" in header
        # A table has thousands of rows, and every command reads the table. Values by position are
        # read faster than values by name. Every row gets an empty field in front, which is the
        # value of a column that the table does not have.
        places = ["", *header]
        self._values_of = itemgetter(
            *(places.index(column if column in places else "") for column in COLUMNS)
        )
        self._part_positions = {column: places.index(column) for column in part_columns}

    def clip(self, row: list[str]) -> Clip:
        """Return the clip of a row.

        Raises:
            UserError: the row is cut off or too long, or a value is not allowed.
        """
        key, label, group, parts, media = self._values(row)
        if not KEY.fullmatch(key):
            raise UserError(f"{self._table}: key '{_short(key)}' is not letters, digits, _ and -.")
        if label not in self._labels:
            near = did_you_mean(label[:QUOTED_CHARACTERS], self._classes)
            raise UserError(
                f"{self._table}: clip {key}: label {_short(label)} is no class; {near}a label is "
                f"the name of a class, or its number from 0 to {len(self._classes) - 1}."
            )
        if not group.isprintable():
            raise UserError(
                f"{self._table}: group '{_short(group)}' of clip {key} holds a character that is "
                "no text."
            )
        if not all(part in PARTS for part in parts.values()):
            found = {column: _short(part) for column, part in parts.items()}
            raise UserError(
                f"{self._table}: clip {key}: a part is train, val or test, not {found}."
            )
        return Clip(
            key=key,
            label=self._labels[label],
            group=group if self._has_groups else key,
            columns=parts,
            audio=_media_file(*media[:3], table=self._table),
            visual=_media_file(*media[3:], table=self._table),
        )

    def _values(self, row: list[str]) -> tuple[str, str, str, dict[str, str], list[str]]:
        """Return key, label, group, parts and the fields of the two files of a row."""
        if len(row) > self._fields:
            raise UserError(
                f"{self._table}: clip {_short(row[0])}: has {len(row)} fields, the header has "
                f"{self._fields}; put a text that holds the separator in quotes."
            )
        fields = ["", *row]
        try:
            key, label, group, *media = self._values_of(fields)
            parts = {column: fields[place] for column, place in self._part_positions.items()}
        except IndexError:
            raise UserError(
                f"{self._table}: a row is cut off after '{_short(','.join(row))}'."
            ) from None
        return composed(key), label, group, parts, media


def _short(text: str) -> str:
    """Return the start of a text that a message quotes, with escapes for unprintable characters."""
    return repr(text[:QUOTED_CHARACTERS])[1:-1] + "…" * (len(text) > QUOTED_CHARACTERS)


def _media_file(path: str, sha256: str, size: str, *, table: str) -> MediaFile:
    if (sha256 and not SHA256.fullmatch(sha256)) or (size and not NUMBER.fullmatch(size)):
        raise UserError(f"{table}: the checksum or the size of {_short(path)} is not valid.")
    _require_path_inside(path, table)
    return MediaFile(path=path, sha256=sha256 or None, size=int(size) if size else None)


def _in_its_file(recording: MediaFile) -> MediaFile:
    """Return a recording with the path of its file and its name in the file."""
    path, member = split_recording(recording.path)
    return replace(recording, path=path, member=member)


def is_plain_path(path: str) -> bool:
    """Return whether a path stays inside the folder to which the path is joined, on any system.

    A path does not stay there if it is absolute, empty or of Windows, or has ``.`` or ``..`` as a
    part.
    """
    parts_are_plain = not {"", ".", ".."}.intersection(path.split("/"))
    return path.isprintable() and parts_are_plain and "\\" not in path and ":" not in path


def _require_path_inside(path: str, table: str) -> None:
    """Refuse a path that could name a file outside the folder to which the path is joined.

    Raises:
        UserError: the path is absolute, empty or of Windows, or has ``.`` or ``..`` as a part.
    """
    if not is_plain_path(path):
        raise UserError(f"{table}: '{_short(path)}' is not a path inside the data set's folder.")
