"""Finds clips in a CSV that a person wrote: which column holds files, classes, groups and parts."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from avsnn.datasets_manifest.clips import composed
from avsnn.datasets_manifest.csv_rows import ENCODINGS, read_rows
from avsnn.errors import UserError
from avsnn.pipeline.new_dataset.draft import PART_OF_WORD, Arrangement, Draft
from avsnn.pipeline.new_dataset.found_files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    FoundFile,
    FoundFiles,
)
from avsnn.pipeline.new_dataset.oddities import Oddities
from avsnn.pipeline.prediction.find_clips import SOUND_SUFFIXES

# Words in the names of columns, the surest words first; the last words are of Excel in German,
# French, Spanish and Italian.
LABEL_WORDS = (
    *("class", "label", "category", "emotion", "target", "gesture", "action", "word", "digit"),
    *("event", "tag", "annotation", "y", "klasse", "classe", "clase", "etikett"),
)
GROUP_WORDS = (
    *("group", "speaker", "actor", "subject", "person", "participant", "patient", "singer"),
    *("recording", "session", "user", "source", "movie", "sprecher", "locuteur", "hablante"),
)
PART_WORDS = ("part", "split", "subset", "partition", "set", "usage", "fold")
# The first bytes of workbooks: of a zip, as Excel and LibreOffice write it, and of older Excel.
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
# The first line by which Excel learns the separator: `sep=;`.
SEPARATOR_LINE = re.compile(r"sep=.\r?\n", re.IGNORECASE)
# A column holds files if at least this share of its values names files that are there.
LEAST_SHARE_OF_FILES = 0.5


@dataclass(frozen=True)
class _Column:
    name: str
    values: tuple[str, ...]

    def words(self) -> list[str]:
        """Return the words of the name: `speakerID` and `speaker_id` give speaker and id."""
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.name)
        return re.findall(r"[^\W\d_]+", spaced.lower())


@dataclass(frozen=True)
class _Roles:
    """The columns of a table by what they hold."""

    files: _Column
    sounds: _Column | None
    label: _Column
    group: _Column | None
    part: _Column | None

    def sentences(self, table: str, columns: Sequence[_Column]) -> list[str]:
        """Return which column was taken for what, for the user."""
        words = {
            "file": self.files,
            "sound": None if self.sounds is self.files else self.sounds,
            "class": self.label,
            "group": self.group,
            "part": self.part,
        }
        taken = [f"{word} = {column.name}" for word, column in words.items() if column]
        unused = [column.name for column in columns if column not in words.values()]
        sentences = [f"Columns of {table}: {', '.join(taken)}."]
        if unused:
            advice = "" if self.group else " If one of them holds the speaker, name it 'speaker'."
            sentences.append(f"Columns that are not used: {', '.join(unused)}.{advice}")
        return sentences


def arrange_table(tables: Sequence[Path], found: FoundFiles, odd: Oddities) -> Arrangement | None:
    """Return the clips of a table; None if no column of the tables names files.

    Args:
        tables: the CSV files. Several are one table if their names are train, val and test.
        found: the files in the folder of the tables.
        odd: receives the rows and files that belong to no clip.

    Raises:
        UserError: the table is no text or no CSV, or names files and no classes.
    """
    table = ", ".join(path.name for path in tables)
    finder = _Finder(found)
    columns = _read_tables(tables, finder)
    roles = _roles(columns, finder, table)
    if roles is None:
        return None
    drafts, is_video = _drafts(roles, finder, odd)
    if len({draft.label for draft in drafts}) < 2:
        raise UserError(
            f"{table}: the column {roles.label.name!r} names fewer than two classes for files that "
            "are here; a data set needs two classes or more."
        )
    named = {draft.visual for draft in drafts} | {draft.audio for draft in drafts}
    odd.add("is in no row of the table", [f.path for f in found.media if f.path not in named])
    return Arrangement(
        drafts,
        "video" if is_video else "image",
        "sound",
        "videos with sound" if is_video else "images with sound files",
        f"classes from {table}",
        roles.sentences(table, columns),
        _group_word(roles.group),
        from_table=True,
    )


def decode_table(content: bytes, name: str) -> str:
    """Return the text of a table in any encoding that spreadsheets write.

    Spreadsheets write UTF-8 or UTF-16, each with or without a mark, or the encoding of Windows in
    western languages.
    """
    if content.startswith(WORKBOOKS):
        raise UserError(f"{name} is a workbook of a spreadsheet; save the sheet as CSV.")
    encoding = next((found for mark, found in ENCODINGS if content.startswith(mark)), "")
    if not encoding and b"\0" in content[:2]:
        encoding = "UTF-16-BE" if content[:1] == b"\0" else "UTF-16-LE"
    try:
        return content.decode(encoding or "UTF-8")
    except UnicodeDecodeError:
        if encoding:
            raise UserError(f"{name}: is cut or damaged; save the file as UTF-8.") from None
    return content.decode("cp1252", errors="replace")


def _read_tables(tables: Sequence[Path], finder: "_Finder") -> list[_Column]:
    """Return the columns of all tables; several tables get a column with the part of each.

    A first line that names a file is no header, and its columns get numbers as names.
    """
    header: list[str] = []
    rows: list[dict[str, str]] = []
    for path in tables:
        try:
            text = decode_table(path.read_bytes(), path.name)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None
        names, *values = [*read_rows(SEPARATOR_LINE.sub("", text, 1), path.name)] or [[]]
        if any(finder.find(name, kind) for name in names for kind in ("visual", "sound")):
            names, values = [""] * len(names), [names, *values]
        names = [composed(name.strip()) or f"column {i}" for i, name in enumerate(names, 1)]
        if len(tables) > 1:
            names = [*names, "part of the file"]
            values = [[*row, path.stem] for row in values]
        header += [name for name in names if name not in header]
        rows += [dict(zip(names, row, strict=False)) for row in values]
    return (
        [
            _Column(name, tuple(composed(row.get(name, "").strip()) for row in rows))
            for name in header
        ]
        if rows
        else []
    )


class _Finder:
    """Finds the files that the values of a table mean."""

    def __init__(self, found: FoundFiles) -> None:
        kinds = {"visual": [*found.videos, *found.images], "sound": found.sounds}
        self._suffixes = {"visual": VIDEO_SUFFIXES + IMAGE_SUFFIXES, "sound": SOUND_SUFFIXES}
        self.videos = {file.path for file in found.videos}
        names: tuple[Callable[[FoundFile], str], ...] = (
            lambda file: composed(file.path),
            lambda file: file.path_without_suffix,
            lambda file: PurePosixPath(composed(file.path)).name,
            lambda file: file.stem,
            # People convert files after they wrote the table, and some systems ignore the case.
            lambda file: file.path_without_suffix.casefold(),
            lambda file: file.stem.casefold(),
        )
        self._index = {
            kind: [_unique(files, name) for name in names] for kind, files in kinds.items()
        }

    def find(self, value: str, kind: str) -> str:
        """Return the path of the file of a kind that a value means; empty if there is none.

        The value may be a path below the folder, the end of a longer path, or a name, each with or
        without the suffix, with another suffix of the kind, or in other capital letters.
        """
        parts = [part for part in value.replace("\\", "/").split("/") if part not in ("", ".")]
        *exact, loose_path, loose_name = self._index[kind]
        texts = ["/".join(parts[start:]) for start in range(len(parts))]
        for text in texts:
            for by_name in exact:
                if path := by_name.get(text):
                    return path
        for text in texts:
            folded = text.casefold()
            if folded.endswith(self._suffixes[kind]):
                folded = folded.rpartition(".")[0]
            if path := loose_path.get(folded) or loose_name.get(folded):
                return path
        return ""


def _unique(files: Iterable[FoundFile], name: Callable[[FoundFile], str]) -> dict[str, str]:
    """Return the path of each file by a name; names of several files are left out."""
    files = list(files)
    counts = Counter(map(name, files))
    return {name(file): file.path for file in files if counts[name(file)] == 1}


def _roles(columns: Sequence[_Column], finder: _Finder, table: str) -> _Roles | None:
    """Return which column holds what; None if no column names videos or images."""
    visual, sound = _file_columns(columns, finder)
    if visual is None:
        return None
    rest = [column for column in columns if column not in (visual, sound)]
    part = _part_column(rest)
    rest = [column for column in rest if column is not part]
    label = _label_column(rest, table)
    rest = [column for column in rest if column is not label]
    return _Roles(visual, sound, label, _named(rest, GROUP_WORDS, _may_be_group), part)


def _file_columns(
    columns: Sequence[_Column], finder: _Finder
) -> tuple[_Column | None, _Column | None]:
    """Return the column of the visual files, and the column of the sounds, if there is one."""

    def best(kind: str) -> _Column | None:
        counts = {
            column: sum(1 for value in set(column.values) if finder.find(value, kind))
            for column in columns
        }
        column = max(counts, key=lambda column: counts[column], default=None)
        if column is None:
            return None
        filled = {value for value in column.values if value}
        enough = counts[column] and counts[column] >= LEAST_SHARE_OF_FILES * len(filled)
        return column if enough else None

    return best("visual"), best("sound")


def _named(
    columns: Sequence[_Column], words: Iterable[str], fits: Callable[[_Column], bool]
) -> _Column | None:
    """Return the column whose name holds the surest word and whose values fit."""
    for word in words:
        for column in columns:
            if word in column.words() and fits(column):
                return column
    return None


def _part_column(columns: Sequence[_Column]) -> _Column | None:
    def holds_parts(column: _Column) -> bool:
        values = {value.lower() for value in column.values if value}
        parts = {PART_OF_WORD.get(value, "") for value in values}
        return len(parts) > 1 and "" not in parts

    named = _named(columns, PART_WORDS, holds_parts)
    return named or next((column for column in columns if holds_parts(column)), None)


def _may_be_label(column: _Column) -> bool:
    values = Counter(value for value in column.values if value)
    is_measure = any(re.fullmatch(r"-?\d+[.,]\d+", value) for value in values)
    return 2 <= len(values) <= max(2, values.total() // 2) and not is_measure


def _may_be_group(column: _Column) -> bool:
    return len({value for value in column.values if value}) > 1


def _label_column(columns: Sequence[_Column], table: str) -> _Column:
    """Return the column that holds the classes.

    Raises:
        UserError: no column does, or several could.
    """
    # A class in words says more than the number of the class.
    for fits in (_holds_words, _may_be_label):
        if named := _named(columns, LABEL_WORDS, fits):
            return named
    fitting = [column for column in columns if _may_be_label(column)]
    if len(fitting) == 1:
        return fitting[0]
    named = _named(columns, LABEL_WORDS, lambda column: any(column.values))
    if not fitting and named:
        count = len({value for value in named.values if value})
        what = "1 value" if count == 1 else f"{count:,} different values, or measures,"
        raise UserError(
            f"{table}: the column {named.name!r} holds {what} in {len(named.values):,} rows; a "
            "data set needs two classes or more, in words or numbers, with two clips or more each."
        )
    names = ", ".join(column.name for column in fitting or columns) or "none"
    raise UserError(
        f"{table}: no column is the class for certain (columns that could be: {names}); name the "
        "column of the classes 'class'."
    )


def _holds_words(column: _Column) -> bool:
    return _may_be_label(column) and not all(re.fullmatch(r"\d*", text) for text in column.values)


def _drafts(roles: _Roles, finder: _Finder, odd: Oddities) -> tuple[list[Draft], bool]:
    """Return the clips of the rows, and whether they are videos."""
    visuals = [finder.find(value, "visual") for value in roles.files.values]
    sounds = [
        finder.find(value, "sound")
        for value in (roles.sounds.values if roles.sounds else [""] * len(visuals))
    ]
    is_video = 2 * sum(path in finder.videos for path in visuals) >= sum(map(bool, visuals))
    drafts: dict[str, Draft] = {}
    places = set()
    for i, (path, sound) in enumerate(zip(visuals, sounds, strict=True)):
        label = roles.label.values[i]
        part = roles.part.values[i].lower() if roles.part else ""
        group = roles.group.values[i] if roles.group else ""
        if not path:
            problem = "names a file that is not there or cannot be used"
        elif not label or not label.isprintable():
            problem = "has no class"
        elif path in drafts:
            problem = "names a file that an earlier row names"
        elif (path in finder.videos) != is_video:
            problem = "names a video among images, or an image among videos"
        elif not sound and not is_video:
            problem = "names an image whose sound is not there"
        elif roles.part and not part:
            problem = "has no part"
        else:
            place = str(PurePosixPath(composed(path)).with_suffix(""))
            place = path if place in places else place
            places.add(place)
            drafts[path] = Draft(
                path,
                sound or path,
                label,
                place,
                part=PART_OF_WORD.get(part, ""),
                group=group if group.isprintable() else "",
            )
            continue
        odd.add(problem, [f"row {i + 2} ({roles.files.values[i] or 'empty'})"], kind="rows")
    return sorted(drafts.values(), key=lambda draft: draft.place), is_video


def _group_word(column: _Column | None) -> str:
    if column is None:
        return ""
    return next((word for word in GROUP_WORDS if word in column.words()), "group")
