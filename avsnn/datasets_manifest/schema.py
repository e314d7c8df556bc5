"""What a data set's YAML and table may say. Everything else about a data set is discovered."""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from operator import itemgetter
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, model_validator

from avsnn.errors import UserError
from avsnn.strict_model import StrictModel

#: Environment variable that names a folder of the user's own YAML and CSV files.
OWN = "AVSNN_DATASETS"

Part = Literal["train", "val", "test"]
PARTS = ("train", "val", "test")

COLUMNS = (
    *("key", "label", "group"),
    *("audio_path", "audio_sha256", "audio_bytes"),
    *("visual_path", "visual_sha256", "visual_bytes"),
)

# WebDataset ends a key at its first dot.
KEY = re.compile(r"[\w-]+")
SHA256 = re.compile(r"[0-9a-f]{64}")


class Source(StrictModel):
    """A place where the files whose path starts with ``prefix`` are published, of one kind."""

    prefix: str = Field(description="start of the path of the files this source holds")
    url: str | None = Field(
        default=None, pattern=r"^https?://.+/$", description="the prefix is replaced by this"
    )
    lfs: str | None = Field(
        default=None,
        pattern=r"^https?://.+/objects/batch$",
        description="batch endpoint of a Git LFS server, which knows files by SHA-256 and size",
    )
    insecure: bool = Field(default=False, description="plain http is allowed")

    @model_validator(mode="after")
    def _agrees(self) -> "Source":
        given = [place for place in (self.url, self.lfs) if place is not None]
        if len(given) != 1:
            raise ValueError("a source has either url or lfs")
        if given[0].startswith("http://") and not self.insecure:
            raise ValueError("a source over plain http must say insecure: true")
        return self

    @property
    def name(self) -> str:
        """What a reason calls it: its host, never the whole address, which may hold a secret."""
        host = urlsplit(self.url or self.lfs or "").hostname
        return f"{host} (LFS)" if self.lfs else str(host)


class ColumnSplit(StrictModel):
    """A split the publisher gave: a column of the table names the part of each clip."""

    column: str
    val_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="share of train set aside for validation, per class"
    )


class OrderSplit(StrictModel):
    """Of each class the first clips by key are train, the others test, whatever they share."""

    first_train: float = Field(gt=0, lt=1, description="share of each class")
    val_fraction: float = Field(default=0.0, ge=0, lt=1, description="as in ColumnSplit")


class GroupSplit(StrictModel):
    """A split without leaks: whole groups (speakers, recordings) go to one part."""

    val_groups: tuple[str, ...]
    test_groups: tuple[str, ...]


class GroupShareSplit(StrictModel):
    """The same, with groups chosen so that each class is shared out as near as possible."""

    test_share: float = Field(gt=0, lt=1, description="of each class")
    val_share: float = Field(gt=0, lt=1, description="of each class")

    @model_validator(mode="after")
    def _leaves_some(self) -> "GroupShareSplit":
        if self.test_share + self.val_share >= 1:
            raise ValueError("test_share and val_share leave nothing to train on")
        return self


Split = ColumnSplit | OrderSplit | GroupSplit | GroupShareSplit


class FolderLayout(StrictModel):
    """A folder per class: ``<audio>/<class>/<stem><audio_suffix>``, and the same for ``visual``.

    Files with the same stem are one clip, and the stem is its key.
    """

    audio: str
    audio_suffix: str = Field(pattern=r"^\.\w+$")
    visual: str
    visual_suffix: str = Field(pattern=r"^\.\w+$")
    stem: str = Field(
        description="pattern of every stem; its group named 'group' is the clip's group, one named "
        "'label', if any, has to be the index of the class"
    )


class Twins(StrictModel):
    """Clips that say the same: those in whose keys the pattern matches the same text."""

    what: str = Field(description="what they share, as a reader would say it")
    pattern: str


class Manifest(StrictModel):
    """One data set.

    The table is a CSV beside the YAML with one row per clip: ``key``, ``label`` (index into
    ``classes``), ``group``, the columns that splits name, and for ``audio`` and ``visual`` a
    ``_path``, ``_sha256`` and ``_bytes`` (the latter two empty where nothing was published).
    Where nobody published one, ``layout`` says how files lie in folders, and the table is written
    beside the data when they are first found (:meth:`with_table`).
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    description: str
    homepage: str | None = None
    licence: str
    visual: Literal["image", "video"]
    group: str = Field(description="what a group is: speaker, actor, recording, ...")
    classes: tuple[str, ...] = Field(min_length=2)
    table: str | None = Field(default=None, pattern=r"^[\w.-]+\.csv$")
    layout: FolderLayout | None = None
    sources: tuple[Source, ...] = Field(
        default=(), description="a file is taken from the first that has it right"
    )
    kaggle: str | None = Field(
        default=None, pattern=r"^[\w-]+/[\w-]+$", description="a Kaggle data set, owner/name"
    )
    generated: bool = Field(default=False, description="the files are made here, not downloaded")
    known_bad: dict[str, str] = Field(
        default_factory=dict,
        description="clips known to be bad, by key, and why; kept, and named where they fail",
    )
    twins: Twins | None = None
    default_split: str
    splits: dict[str, Split]

    @model_validator(mode="after")
    def _agrees(self) -> "Manifest":
        if self.default_split not in self.splits:
            raise ValueError(f"default_split {self.default_split!r} is not one of its splits")
        if [bool(self.sources), self.kaggle is not None, self.generated].count(True) != 1:
            raise ValueError("a data set is generated, or has sources, or is on Kaggle")
        if (self.table is None) == (self.layout is None):
            raise ValueError("a data set has a table or a layout")
        return self

    def with_table(self, path: Path) -> "Manifest":
        """The same data set with its clips from a table that is not beside the YAML."""
        other = self.model_copy(update={"table": str(path.absolute())})
        # A copy keeps what was computed from the fields as they were.
        other.__dict__.pop("clips", None)
        return other

    @property
    def table_bytes(self) -> bytes:
        """The table as it is written.

        Raises:
            UserError: it is not there.
        """
        # Joined to an absolute path, a folder does not count.
        table = files(__package__).joinpath(str(self.table))
        if not table.is_file():
            raise UserError(f"{self.name}.yaml: its table {self.table} is not beside it.")
        return table.read_bytes()

    @cached_property
    def clips(self) -> tuple["Clip", ...]:
        """Every clip of the table, in its order; none where the table is not written yet.

        Raises:
            UserError: a path leaves the data set's folder or is held by no source, a label or part
                is unknown, a key occurs twice, or the text is no such table.
        """
        if self.table is None:
            return ()
        text = self.table_bytes.decode()
        rows = csv.reader(text.splitlines())
        header = next(rows, [])
        parts = [rule.column for rule in self.splits.values() if isinstance(rule, ColumnSplit)]
        missing = [name for name in (*COLUMNS, *parts) if name not in header]
        if missing:
            raise UserError(f"{self.table}: has no column {missing[0]!r}; restore the file.")
        # A table has thousands of rows, and is read by every command: by position, not by name.
        pick = itemgetter(*map(header.index, COLUMNS))
        columns = {name: header.index(name) for name in parts}
        clips = tuple([self._clip(row, pick, columns) for row in rows])
        if len({clip.key for clip in clips}) != len(clips):
            twice = Counter(clip.key for clip in clips).most_common(1)[0][0]
            raise UserError(f"{self.table}: key {twice} occurs twice; every clip needs its own.")
        prefixes = tuple(source.prefix for source in self.sources)
        for file in (file for clip in clips for file in clip.files):
            if self.sources and not file.path.startswith(prefixes):
                raise UserError(f"{self.name}: no source in its manifest holds {file.path}.")
        return clips

    def _clip(
        self, row: list[str], pick: Callable[[list[str]], tuple[str, ...]], columns: dict[str, int]
    ) -> "Clip":
        try:
            key, label, group, *media = pick(row)
            parts = {name: row[place] for name, place in columns.items()}
        except IndexError:
            raise UserError(f"{self.table}: a row is cut off after {','.join(row)!r}.") from None
        if not label.isdecimal() or int(label) >= len(self.classes):
            raise UserError(f"{self.table}: clip {key}: label {label} is no class.")
        if not all(part in PARTS for part in parts.values()):
            raise UserError(f"{self.table}: clip {key}: a part is train, val or test, not {parts}.")
        if not KEY.fullmatch(key):
            raise UserError(f"{self.table}: key {key!r} is not letters, digits, _ and -.")
        return Clip(
            key=key,
            label=int(label),
            group=group,
            columns=parts,
            audio=self._file(*media[:3]),
            visual=self._file(*media[3:]),
        )

    def _file(self, path: str, sha256: str, size: str) -> "MediaFile":
        if (sha256 and not SHA256.fullmatch(sha256)) or (size and not size.isdecimal()):
            raise UserError(f"{self.table}: {path} has a checksum or size that is none.")
        return MediaFile(
            path=_inside(path, str(self.table)),
            sha256=sha256 or None,
            size=int(size) if size else None,
        )


@dataclass(frozen=True)
class MediaFile:
    """One published file: path in the data set's folder, and its SHA-256 and bytes if known."""

    path: str
    sha256: str | None
    size: int | None


@dataclass(frozen=True)
class Clip:
    """One sample as published: an audio and a visual file under one label."""

    key: str
    label: int
    group: str
    columns: dict[str, str]
    audio: MediaFile
    visual: MediaFile

    @property
    def files(self) -> tuple[MediaFile, MediaFile]:
        """Its files, audio first."""
        return (self.audio, self.visual)


def names() -> list[str]:
    """Names of all data sets, sorted: those that come with avsnn, and the user's own.

    Raises:
        UserError: the folder of the user's own is none.
    """
    return sorted(_places())


def _own_folder() -> Path | None:
    return Path(os.environ[OWN]) if os.environ.get(OWN) else None


def _places() -> dict[str, Traversable]:
    """The YAML of every data set; one of the user's own takes the place of ours."""
    folders: list[Traversable] = [files(__package__)]
    if (own := _own_folder()) is not None:
        if not own.is_dir():
            raise UserError(f"{OWN}={own} is not a folder; give the one that holds your YAML.")
        folders.append(own)
    return {
        entry.name.removesuffix(".yaml"): entry
        for folder in folders
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }


def load(name: str) -> Manifest:
    """The manifest of one data set.

    Raises:
        UserError: there is no such data set, or its YAML does not fit the schema.
    """
    places = _places()
    if name not in places:
        known = ", ".join(sorted(places))
        raise UserError(
            f"no data set is called {name!r}; there are: {known}. Your own are found in the folder "
            f"that the environment variable {OWN} names."
        )
    place = places[name]
    manifest = _parse_manifest(name, place.read_bytes())
    if manifest.table is not None and isinstance(place, Path) and place.parent == _own_folder():
        return manifest.with_table(place.with_name(manifest.table))
    return manifest


@lru_cache(maxsize=64)
def _parse_manifest(name: str, content: bytes) -> Manifest:
    """Parse and check a YAML; a command that asks for one data set many times parses it once."""
    try:
        manifest = Manifest.model_validate(yaml.safe_load(content.decode()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name}.yaml is not YAML ({reason}); mend it.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise UserError(f"{name}.yaml: {where}: {first['msg']}.") from None
    if manifest.name != name:
        raise UserError(f"{name}.yaml: its name is {manifest.name!r}; name the file after it.")
    return manifest


def _inside(path: str, table: str) -> str:
    """The path itself, if it names something below the folder it is joined to."""
    plain = path.isprintable() and not {"", ".", ".."}.intersection(path.split("/"))
    if not plain or "\\" in path or ":" in path:
        raise UserError(f"{table}: {path!r} is not a path inside the data set's folder.")
    return path
