"""The schema of a data set's YAML file. avsnn discovers every other fact from the files."""

import re
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from avsnn.datasets_manifest.clips import Clip, MediaFile, read_table
from avsnn.datasets_manifest.patterns import Pattern
from avsnn.datasets_manifest.recordings import EVENT_FORMATS, PART_COLUMN, Pairs
from avsnn.errors import UserError
from avsnn.pydantic_base import StrictModel


def _require_folder_name(text: str) -> str:
    if text in ("", ".", "..") or "/" in text or not text.isprintable():
        raise ValueError(f"{text!r} is not the name of a folder")
    return text


def _require_distinct_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name, count in Counter(names).items():
        if not (name and name.isprintable()):
            raise ValueError(f"{name!r} is not the name of a class")
        if count > 1:
            raise ValueError(f"two classes are called {name!r}")
    return names


FolderName = Annotated[str, AfterValidator(_require_folder_name)]


class Source(StrictModel):
    """A place from which files can be downloaded.

    A place is a folder on the web, a Git LFS server, or the address of a single file.
    """

    prefix: str = Field(
        description="The source holds the files whose path starts with this text; empty for all "
        "files"
    )
    url: str | None = Field(
        default=None,
        pattern=r"^https?://.+/$",
        description="Start of the address of every file; replaces the prefix of the path",
    )
    lfs: str | None = Field(
        default=None,
        pattern=r"^https?://.+/objects/batch$",
        description="Batch endpoint of a Git LFS server, which knows files by SHA-256 and size",
    )
    file: str | None = Field(
        default=None,
        pattern=r"^https?://.+[^/]$",
        description="Address of a single file; the prefix is the whole path of the file",
    )
    insecure: bool = Field(
        default=False, description="Whether plain http, without encryption, is allowed"
    )

    @model_validator(mode="after")
    def _require_one_secure_address(self) -> "Source":
        given = [address for address in (self.url, self.lfs, self.file) if address is not None]
        if len(given) != 1:
            raise ValueError("a source has url, lfs or file, and only one of the three")
        if given[0].startswith("http://") and not self.insecure:
            raise ValueError("a source over plain http must say insecure: true")
        return self

    @property
    def name(self) -> str:
        """The name of the source in messages: the host only.

        The whole address may hold a secret.
        """
        host = urlsplit(self.url or self.lfs or self.file or "").hostname
        return f"{host} (LFS)" if self.lfs else str(host)


class FolderLayout(StrictModel):
    """A layout with one folder for each class.

    Audio files are ``<audio>/<class>/<stem><audio_suffix>``, and visual files are
    ``<visual>/<class>/<stem><visual_suffix>``. An audio file and a visual file with the same stem
    are one clip, and the stem is the key of the clip.
    """

    audio: FolderName = Field(description="Name of the folder that holds the audio files")
    audio_suffix: str = Field(
        pattern=r"^\.\w+$", description="Suffix of the audio files, with its dot"
    )
    visual: FolderName = Field(description="Name of the folder that holds the images or videos")
    visual_suffix: str = Field(
        pattern=r"^\.\w+$", description="Suffix of the images or videos, with its dot"
    )
    stem: Pattern = Field(
        description="Regular expression that every stem matches. The group named 'group' is the "
        "group of the clip. A group named 'label', if there is one, must be the index of the class"
    )

    @model_validator(mode="after")
    def _require_two_folders_and_a_group(self) -> "FolderLayout":
        if self.audio == self.visual:
            raise ValueError("audio and visual are the same folder")
        if "group" not in re.compile(self.stem).groupindex:
            raise ValueError("stem has no group named 'group'")
        return self


class ColumnSplit(StrictModel):
    """A split that the publisher gave: a column of the table names the part of each clip."""

    column: str = Field(description="Name of the column that holds train, val or test")
    val_fraction: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the train part that is set aside for validation, in each class",
    )
    whole_recordings: bool = Field(
        default=False,
        description="Whether clips that share a recording stay together, so that train and val "
        "share no recording",
    )
    keys: Pattern | None = Field(
        default=None,
        description="Regular expression of the keys of the clips in the split; other clips are in "
        "no part. Unset takes all clips",
    )


class OrderSplit(StrictModel):
    """A split by the order of keys: the first clips of each class are train, the rest are test.

    The two parts may share groups, such as speakers or recordings.
    """

    first_train: float = Field(gt=0, lt=1, description="Share of each class that is train")
    val_fraction: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the train part that is set aside for validation, in each class",
    )


class GroupSplit(StrictModel):
    """A split without leaks: every group (speaker, recording) is in one part as a whole."""

    val_groups: tuple[str, ...] = Field(description="Groups of the validation part")
    test_groups: tuple[str, ...] = Field(description="Groups of the test part")


class GroupShareSplit(StrictModel):
    """A split without leaks that chooses the groups of each part by the shares of the classes.

    Every group is in one part as a whole. The share of each class in each part is as near as
    possible to the share that is asked for.
    """

    test_share: float = Field(gt=0, lt=1, description="Share of each class in the test part")
    val_share: float = Field(gt=0, lt=1, description="Share of each class in the validation part")

    @model_validator(mode="after")
    def _require_a_train_part(self) -> "GroupShareSplit":
        if self.test_share + self.val_share >= 1:
            raise ValueError("test_share and val_share leave nothing to train on")
        return self


Split = ColumnSplit | OrderSplit | GroupSplit | GroupShareSplit


class Twins(StrictModel):
    """A rule for clips that say the same thing, such as two takes of one sentence.

    Clips are twins if the pattern matches the same text in their keys.
    """

    what: str = Field(description="What twins have in common, in words for the reader")
    pattern: Pattern = Field(description="Regular expression that is searched in every key")


class Manifest(StrictModel):
    """The facts about one data set.

    A data set has a table, a layout or pairs. The table is a CSV file beside the YAML file with one
    row per clip. The columns of the table are ``key``, ``label`` (index into ``classes``),
    ``group``, every column that a split names, and ``_path``, ``_sha256`` and ``_bytes`` of
    ``audio`` and of ``visual``. The checksum and the size are empty where nobody published them.

    Where nobody published a list of clips, ``layout`` says how the files lie in folders. avsnn
    then writes the table beside the data when avsnn first finds the files (:meth:`with_table`).
    Where recordings of two sensors were published, ``pairs`` says which of them become clips, and
    avsnn writes the table when the files are here.
    """

    name: str = Field(
        pattern=r"^[a-z0-9-]+$", description="Name of the data set in commands, and of the YAML"
    )
    title: str = Field(description="Title for people")
    description: str = Field(description="What the clips are, how many there are, and the splits")
    homepage: str | None = Field(default=None, description="Address of the publisher's page")
    licence: str = Field(description="Licence of the data")
    visual: Literal["image", "video", "aedat2", "n-mnist"] = Field(
        description="What every visual file is: an image, a video, or the format of the recordings "
        "of an event camera"
    )
    audio: Literal["sound", "n-tidigits", "shd"] = Field(
        default="sound",
        description="What every audio file is: sound, or the format of the recordings of a cochlea",
    )
    group: str = Field(
        description="What a group of clips has in common: speaker, actor, recording; 'none' where "
        "clips have no groups"
    )
    classes: Annotated[tuple[str, ...], AfterValidator(_require_distinct_names)] = Field(
        min_length=2, description="Names of the classes, in the order of their labels"
    )
    table: str | None = Field(
        default=None, pattern=r"^[\w.-]+\.csv$", description="Name of the table beside the YAML"
    )
    layout: FolderLayout | None = Field(
        default=None, description="How the files lie in folders, where nobody published a table"
    )
    pairs: Pairs | None = Field(
        default=None, description="How recordings become clips, where nobody published a table"
    )
    sources: tuple[Source, ...] = Field(
        default=(),
        description="Sources in the order in which avsnn asks them; the first source that has the "
        "right bytes of a file serves the file",
    )
    kaggle: str | None = Field(
        default=None,
        pattern=r"^[\w-]+/[\w-]+$",
        description="Data set on Kaggle that holds the files, as owner/name",
    )
    generated: bool = Field(
        default=False, description="Whether avsnn generates the files instead of a download"
    )
    known_bad: dict[str, str] = Field(
        default_factory=dict,
        description="Clips that are known to be bad, by key, each with the reason. Bad clips stay "
        "in the data set; where a bad clip fails, the failure names the reason",
    )
    twins: Twins | None = Field(default=None, description="Which clips say the same thing")
    default_split: str = Field(description="Split that avsnn uses where the user names none")
    splits: dict[str, Split] = Field(description="Rule of each split, by the name of the split")

    @model_validator(mode="after")
    def _require_consistent_facts(self) -> "Manifest":
        if self.default_split not in self.splits:
            raise ValueError(f"default_split {self.default_split!r} is not one of its splits")
        if [bool(self.sources), self.kaggle is not None, self.generated].count(True) != 1:
            raise ValueError("a data set is generated, or has sources, or is on Kaggle")
        described = [self.table, self.layout, self.pairs]
        if len([one for one in described if one is not None]) != 1:
            raise ValueError("a data set has a table, a layout or pairs, and only one of the three")
        if (self.visual in EVENT_FORMATS) != (self.audio in EVENT_FORMATS):
            raise ValueError("visual and audio are both recordings of event sensors, or neither")
        if self.pairs and not self.has_events:
            raise ValueError("pairs are for recordings of event sensors")
        prefixes = tuple(source.prefix for source in self.sources)
        if self.sources and any(
            not file.published_path.startswith(prefixes) for file in self.recording_files
        ):
            raise ValueError("no source holds one of the files of pairs")
        if self.pairs:
            self._require_consistent_pairs(self.pairs)
        return self

    def _require_consistent_pairs(self, pairs: Pairs) -> None:
        if self.generated:
            raise ValueError("avsnn generates no files of pairs; give sources")
        labels = {*pairs.audio.labels.values(), *pairs.visual.labels.values()}
        if wrong := sorted(label for label in labels if not 0 <= label < len(self.classes)):
            raise ValueError(f"pairs: label {wrong[0]} is no class")
        for name, rule in self.splits.items():
            if isinstance(rule, ColumnSplit) and rule.column != PART_COLUMN:
                raise ValueError(
                    f"split {name!r} names the column {rule.column!r}, and the table of pairs has "
                    f"only the column {PART_COLUMN!r} for parts"
                )
            if isinstance(rule, GroupSplit | GroupShareSplit) and not pairs.has_groups:
                raise ValueError(
                    f"split {name!r} needs groups, and no path of pairs has a group named 'group'"
                )

    @property
    def has_events(self) -> bool:
        """Whether the clips are recordings of event sensors, and not pictures and sound."""
        return self.visual in EVENT_FORMATS

    def files_of(self, clips: Iterable[Clip]) -> dict[str, MediaFile]:
        """Return the published files of some clips by path, each once.

        Files that hold many recordings are needed whole, whatever the clips are.
        """
        held = {file.path: file for file in self.recording_files}
        return held or {file.path: file for clip in clips for file in clip.files}

    @property
    def recording_files(self) -> tuple[MediaFile, ...]:
        """The published files that hold many recordings; no files where each clip has its own."""
        if self.pairs is None:
            return ()
        return tuple(
            file.media_file for file in (*self.pairs.visual.files, *self.pairs.audio.files)
        )

    def with_table(self, path: Path) -> "Manifest":
        """Return the same data set with the clips of a table that is not beside the YAML file."""
        other = self.model_copy(update={"table": str(path.absolute())})
        # `clips` is cached, and the copy has the cache of the old table.
        other.__dict__.pop("clips", None)
        return other

    @property
    def table_bytes(self) -> bytes:
        """The content of the table.

        Raises:
            UserError: the table does not exist or cannot be read.
        """
        # `joinpath` drops the package folder when `table` is absolute.
        table = files(__package__).joinpath(str(self.table))
        if not table.is_file():
            raise UserError(f"{self.name}.yaml: the table {self.table} is not beside it.")
        try:
            return table.read_bytes()
        except OSError as error:
            raise UserError(f"{table} cannot be read: {error.strerror}.") from None

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """All clips, in the order of the table; no clips where no table is written yet.

        Raises:
            UserError: the table does not exist or has a mistake, no source holds a file, or a clip
                of ``known_bad`` is not in the table.
        """
        if self.table is None:
            return ()
        clips = read_table(
            self.table_bytes,
            name=self.table,
            class_count=len(self.classes),
            part_columns=[
                rule.column for rule in self.splits.values() if isinstance(rule, ColumnSplit)
            ],
            holds_recordings=self.has_events,
        )
        prefixes = tuple(source.prefix for source in self.sources)
        for file in (file for clip in clips for file in clip.files):
            if self.sources and not self.pairs and not file.path.startswith(prefixes):
                raise UserError(f"{self.name}: no source in its manifest holds {file.path}.")
        unknown = self.known_bad.keys() - {clip.key for clip in clips}
        # The table of a layout holds the clips that were found so far.
        if unknown and self.layout is None and self.pairs is None:
            raise UserError(
                f"{self.name}.yaml: known_bad: no clip of {self.table} has the key "
                f"{min(unknown)!r}."
            )
        return clips
