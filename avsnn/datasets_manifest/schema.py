"""What a data set's YAML and table may say. Everything else about a data set is discovered."""

import csv
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from avsnn.errors import UserError

PARTS = ("train", "val", "test")


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Facts):
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


class ColumnSplit(_Facts):
    """A split the publisher gave: a column of the table names the part of each clip."""

    column: str
    val_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="share of train set aside for validation, per class"
    )


class GroupSplit(_Facts):
    """A split without leaks: whole groups (speakers, recordings) go to one part."""

    val_groups: tuple[str, ...]
    test_groups: tuple[str, ...]


class Manifest(_Facts):
    """One data set.

    The table is a CSV beside the YAML with one row per clip: ``key``, ``label`` (index into
    ``classes``), ``group``, the columns that splits name, and for ``audio`` and ``visual`` a
    ``_path``, ``_sha256`` and ``_bytes`` (the latter two empty where nothing was published).
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    description: str
    homepage: str | None = None
    licence: str
    visual: Literal["image", "video"]
    group: str = Field(description="what a group is: speaker, actor, recording, ...")
    classes: tuple[str, ...] = Field(min_length=2)
    table: str
    sources: tuple[Source, ...] = Field(
        default=(), description="a file is taken from the first that has it right"
    )
    generated: bool = Field(default=False, description="the files are made here, not downloaded")
    default_split: str
    splits: dict[str, ColumnSplit | GroupSplit]

    @model_validator(mode="after")
    def _agrees(self) -> "Manifest":
        if self.default_split not in self.splits:
            raise ValueError(f"default_split {self.default_split!r} is not one of its splits")
        if bool(self.sources) == self.generated:
            raise ValueError("a data set is either generated or has sources")
        return self

    @cached_property
    def clips(self) -> tuple["Clip", ...]:
        """Every clip of the table, in its order.

        Raises:
            UserError: a path leaves the data set's folder or is held by no source, a label or part
                is unknown, a key occurs twice.
        """
        text = files(__package__).joinpath(self.table).read_text(encoding="utf-8")
        clips = tuple(self._clip(row) for row in csv.DictReader(text.splitlines()))
        if len({clip.key for clip in clips}) != len(clips):
            raise UserError(f"{self.table}: a key occurs twice; every clip needs its own.")
        prefixes = tuple(source.prefix for source in self.sources)
        for file in (file for clip in clips for file in clip.files):
            if self.sources and not file.path.startswith(prefixes):
                raise UserError(f"{self.name}: no source in its manifest holds {file.path}.")
        return clips

    def _clip(self, row: dict[str, str]) -> "Clip":
        columns = {
            split.column: row[split.column]
            for split in self.splits.values()
            if isinstance(split, ColumnSplit)
        }
        if not 0 <= int(row["label"]) < len(self.classes):
            raise UserError(f"{self.table}: clip {row['key']}: label {row['label']} is no class.")
        if not set(columns.values()) <= set(PARTS):
            raise UserError(f"{self.table}: clip {row['key']}: a part is one of {PARTS}.")
        if not re.fullmatch(r"[\w-]+", row["key"]):
            raise UserError(f"{self.table}: key {row['key']!r} is not letters, digits, _ and -.")
        return Clip(
            key=row["key"],
            label=int(row["label"]),
            group=row["group"],
            columns=columns,
            audio=_media_file(row, "audio", self.table),
            visual=_media_file(row, "visual", self.table),
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
    """Names of all data sets, sorted."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in files(__package__).iterdir()
        if entry.name.endswith(".yaml")
    )


def load(name: str) -> Manifest:
    """The manifest of one data set.

    Raises:
        UserError: there is no such data set, or its YAML does not fit the schema.
    """
    if name not in names():
        raise UserError(f"no data set is called {name!r}; there are: {', '.join(names())}.")
    text = files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    try:
        return Manifest.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise UserError(f"{name}.yaml: {where}: {first['msg']}.") from None


def _media_file(row: dict[str, str], kind: str, table: str) -> MediaFile:
    size = row[f"{kind}_bytes"]
    return MediaFile(
        path=_inside(row[f"{kind}_path"], table),
        sha256=row[f"{kind}_sha256"] or None,
        size=int(size) if size else None,
    )


def _inside(path: str, table: str) -> str:
    """The path itself, if it names something below the folder it is joined to."""
    pure = PurePosixPath(path)
    plain = pure.parts and pure.as_posix() == path and path.isprintable()
    if not plain or pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path:
        raise UserError(f"{table}: {path!r} is not a path inside the data set's folder.")
    return path
