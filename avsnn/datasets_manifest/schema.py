"""The schema of a data set's YAML file. avsnn discovers every other fact from the files."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.resources import files
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, Field, model_validator

from avsnn.datasets_manifest.archives import Archive, archives_of, require_in_archives
from avsnn.datasets_manifest.clip_table import ClipTable, FilesOfRecordings, PublishedFiles
from avsnn.datasets_manifest.clips import MediaFile
from avsnn.datasets_manifest.patterns import Pattern
from avsnn.datasets_manifest.recordings import EVENT_FORMATS, PART_COLUMN, Pairs
from avsnn.datasets_manifest.sources import Source
from avsnn.datasets_manifest.split_rules import (
    ColumnSplit,
    GroupShareSplit,
    GroupSplit,
    Split,
)
from avsnn.datasets_manifest.table_reader import read_table_once
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


class FolderLayout(StrictModel):
    """A layout with one folder for each class.

    Audio files are ``<audio>/<class>/<stem><audio_suffix>``, and visual files are
    ``<visual>/<class>/<stem><visual_suffix>``. An audio file and a visual file with the same stem
    are one clip, and the stem is the key of the clip.
    """

    audio: FolderName = Field(
        description="Name of the folder that holds a folder of audio files for each class"
    )
    audio_suffix: str = Field(
        pattern=r"^\.\w+$",
        description="Suffix of the audio files, with its dot",
        examples=[".wav"],
    )
    visual: FolderName = Field(
        description="Name of the folder that holds a folder of images or videos for each class"
    )
    visual_suffix: str = Field(
        pattern=r"^\.\w+$",
        description="Suffix of the images or videos, with its dot",
        examples=[".png"],
    )
    stem: Pattern = Field(
        description="Regular expression that every name without its suffix matches. The group "
        "named 'group' is the group of the clip, such as a speaker. A group named 'label', if "
        "there is one, must be the index of the class",
        examples=[r"(?P<group>\d+)-\d+"],
    )

    @model_validator(mode="after")
    def _require_two_folders_and_a_group(self) -> "FolderLayout":
        if self.audio == self.visual:
            raise ValueError("audio and visual are the same folder")
        if "group" not in re.compile(self.stem).groupindex:
            raise ValueError("stem has no group named 'group'")
        return self


class Twins(StrictModel):
    """A rule for clips that say the same thing, such as two takes of one sentence.

    Clips are twins if the pattern matches the same text in their keys.
    """

    what: str = Field(
        description="What twins have in common, in words for the reader", examples=["sentence"]
    )
    pattern: Pattern = Field(
        description="Regular expression that is searched in every key; clips in whose keys the "
        "expression finds the same text are twins",
        examples=[r"sentence\d+"],
    )


class Manifest(StrictModel):
    """The facts about one data set.

    A data set has a table, a layout or pairs. The table is a CSV file beside the YAML file with one
    row per clip. The columns ``key``, ``label``, ``audio_path`` and ``visual_path`` are required,
    and so is every column that a split names. A label is the name or the index of a class. The
    column ``group`` may be absent; every clip then is a group of its own. ``_sha256`` and
    ``_bytes`` of ``audio`` and of ``visual`` may be absent or empty where nobody published them.
    Where both paths are the path of one video, the sound is the sound track of the video.

    Where nobody published a list of clips, ``layout`` says how the files lie in folders. avsnn
    then writes the table beside the data when avsnn first finds the files (:meth:`with_table`).
    Where recordings of two sensors were published, ``pairs`` says which of them become clips, and
    avsnn writes the table when the files are here.
    """

    name: str = Field(
        pattern=r"^[a-z0-9-]+$",
        description="Name of the data set in commands, of small letters, digits and hyphens. The "
        "YAML file has the same name",
        examples=["my-clips"],
    )
    title: str = Field(description="Title for people", examples=["My clips"])
    description: str = Field(
        description="What the clips are, how many there are, and the splits, for people",
        examples=["60 clips of two animals"],
    )
    homepage: str | None = Field(default=None, description="Address of the publisher's page")
    licence: str = Field(description="Licence of the data, for people", examples=["private"])
    visual: Literal["image", "video", "aedat2", "n-mnist"] = Field(
        description="What every visual file is: an image, a video, or the format of the recordings "
        "of an event camera",
        examples=["video"],
    )
    audio: Literal["sound", "n-tidigits", "shd"] = Field(
        default="sound",
        description="What every audio file is: sound (a sound file, or a video with a sound "
        "track), or the format of the recordings of a cochlea",
    )
    group: str = Field(
        description="What a group of clips has in common: speaker, actor, recording; 'none' where "
        "clips have no groups",
        examples=["none"],
    )
    classes: Annotated[tuple[str, ...], AfterValidator(_require_distinct_names)] = Field(
        min_length=2,
        description="Names of the classes. The first class has label 0, the second label 1, and "
        "so on",
        examples=[["cat", "dog"]],
    )
    table: str | None = Field(
        default=None,
        pattern=r"^[\w.-]+\.csv$",
        description="Name of the CSV table beside the YAML, with one row per clip",
    )
    layout: FolderLayout | None = Field(
        default=None,
        description="How the files lie in folders, as KIND/CLASS/NAME, where nobody published a "
        "table. avsnn then finds the clips: an audio file and a visual file of one class and name",
    )
    pairs: Pairs | None = Field(
        default=None,
        description="How recordings of two event sensors become clips, where nobody published a "
        "table",
    )
    archives: tuple[Archive, ...] = Field(
        default=(),
        description="Published zips that hold the files of the table. A path of the table then is "
        "the name of a zip, a slash, and the name of the file in the zip",
    )
    folder: str | None = Field(
        default=None,
        min_length=1,
        description="Folder on this machine that holds the files; absolute, or relative to the "
        "folder of the YAML file; '~' is the home folder. The paths of the table are below this "
        "folder. A data set has one of 'folder', 'sources', 'kaggle' and 'generated'",
    )
    take: Literal["link", "copy"] = Field(
        default="link",
        description="How 'prepare' takes the files of 'folder': as symbolic links, which need no "
        "room on the disk, or as copies, which stay when the files change or go",
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
    preset: str | None = Field(
        default=None,
        description="Preset that 'train' and 'reproduce' lay over the default settings where no "
        "preset has the name of the data set, such as 'small' for some hundreds of clips",
    )
    known_bad: dict[str, str] = Field(
        default_factory=dict,
        description="Clips that are known to be bad, by key, each with the reason. Bad clips stay "
        "in the data set; where a bad clip fails, the failure names the reason",
    )
    twins: Twins | None = Field(
        default=None,
        description="Which clips say the same thing, such as two takes of one sentence; "
        "'datasets check' counts twins in different parts",
    )
    default_split: str = Field(
        description="Split that avsnn uses where the user names none", examples=["random"]
    )
    splits: dict[str, Split] = Field(
        description="Rule of each split, by the name of the split: which clips are train, val and "
        "test",
        examples=[{"random": {"test_share": 0.2, "val_share": 0.2}}],
    )

    @model_validator(mode="after")
    def _require_consistent_facts(self) -> "Manifest":
        if self.default_split not in self.splits:
            raise ValueError(f"default_split {self.default_split!r} is not one of its splits")
        origins = [self.folder, self.sources, self.kaggle, self.generated]
        if len([origin for origin in origins if origin]) != 1:
            raise ValueError(
                "a data set has one of folder, sources, kaggle and generated, which says where the "
                "files are; for files on this machine, add the line 'folder: FOLDER'"
            )
        if self.take == "copy" and self.folder is None:
            raise ValueError("take says how the files of folder are taken, and there is no folder")
        described = [self.table, self.layout, self.pairs]
        if len([one for one in described if one is not None]) != 1:
            raise ValueError("a data set has a table, a layout or pairs, and only one of the three")
        if (self.visual in EVENT_FORMATS) != (self.audio in EVENT_FORMATS):
            raise ValueError("visual and audio are both recordings of event sensors, or neither")
        if self.pairs and not self.has_events:
            raise ValueError("pairs are for recordings of event sensors")
        if self.archives and (self.table is None or self.has_events or self.generated):
            raise ValueError("archives are for a table of images, videos and sounds")
        prefixes = tuple(source.prefix for source in self.sources)
        if self.sources and any(
            not file.published_path.startswith(prefixes) for file in self.recording_files
        ):
            raise ValueError("no source holds one of the files of pairs or archives")
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

    def files_of(self, clips: ClipTable) -> PublishedFiles:
        """Return the published files of some clips, each once.

        Files of pairs are needed whole, whatever the clips are.
        """
        if self.archives:
            return archives_of(clips, self.archives)
        return FilesOfRecordings(self.recording_files) if self.pairs else clips.files

    @property
    def recording_files(self) -> tuple[MediaFile, ...]:
        """The published files that hold many recordings; no files where each clip has its own."""
        if self.pairs is None:
            return tuple(archive.media_file for archive in self.archives)
        return tuple(
            file.media_file for file in (*self.pairs.visual.files, *self.pairs.audio.files)
        )

    def with_table(self, path: Path) -> "Manifest":
        """Return the same data set with the clips of a table that is not beside the YAML file."""
        return self._with_places(table=str(path.absolute()))

    def of_file(self, path: Path) -> "Manifest":
        """Return the same data set with absolute paths of its table and of its folder.

        Args:
            path: the YAML file of a user. Where the file is a link, the table may be beside the
                link or beside the file that the link leads to.
        """
        places = {}
        if self.table is not None:
            beside = path.with_name(self.table)
            if not beside.exists() and path.is_symlink():
                beside = path.resolve().with_name(self.table)
            places["table"] = str(beside.absolute())
        if self.folder is not None:
            # `joinpath` drops the folder of the YAML file where `folder` is absolute.
            folder = path.resolve().parent.joinpath(os.path.expanduser(self.folder))  # noqa: PTH111
            places["folder"] = os.path.normpath(folder)
        return self._with_places(**places)

    def _with_places(self, **places: str) -> "Manifest":
        other = self.model_copy(update=places)
        # `clips` is cached, and the copy has the cache of the old table.
        other.__dict__.pop("clips", None)
        return other

    @contextmanager
    def open_table(self) -> Iterator[BufferedReader]:
        """Open the table.

        Raises:
            UserError: the table does not exist or cannot be read.
        """
        # `joinpath` drops the package folder when `table` is absolute.
        table = files(__package__).joinpath(str(self.table))
        if not table.is_file():
            raise UserError(
                f"{self.name}.yaml: the table {self.table} is not beside it; move the table there."
            )
        try:
            with table.open("rb") as file:
                yield cast("BufferedReader", file)
        except OSError as error:
            raise UserError(f"{table} cannot be read: {error.strerror}.") from None

    @property
    def table_bytes(self) -> bytes:
        """The content of the table.

        Raises:
            UserError: the table does not exist or cannot be read.
        """
        with self.open_table() as file:
            return file.read()

    @cached_property
    def clips(self) -> ClipTable:
        """All clips, in the order of the table; no clips where no table is written yet.

        Raises:
            UserError: the table does not exist or has a mistake, no source holds a file, or a clip
                of ``known_bad`` is not in the table.
        """
        if self.table is None:
            return ClipTable.empty()
        with self.open_table() as file:
            clips = read_table_once(
                file,
                name=self.table,
                classes=self.classes,
                labels_are_numbers=self.layout is not None or self.pairs is not None,
                part_columns=[
                    rule.column for rule in self.splits.values() if isinstance(rule, ColumnSplit)
                ],
                needs_groups=any(isinstance(rule, GroupSplit) for rule in self.splits.values()),
                holds_recordings=self.has_events or bool(self.archives),
            )
        if self.archives:
            require_in_archives(clips, self.archives, str(self.table))
        prefixes = tuple(source.prefix for source in self.sources)
        if self.sources and not self.pairs and "" not in prefixes:
            for path in chain(*zip(clips.audio.paths, clips.visual.paths, strict=True)):
                if not path.startswith(prefixes):
                    raise UserError(f"{self.name}: no source in its manifest holds {path}.")
        known_bad = sorted(self.known_bad)
        rows = clips.find(known_bad) if known_bad else ()
        unknown = [key for key, row in zip(known_bad, rows, strict=True) if row < 0]
        # The table of a layout holds the clips that were found so far.
        if unknown and self.layout is None and self.pairs is None:
            raise UserError(
                f"{self.name}.yaml: known_bad: no clip of {self.table} has the key {unknown[0]!r}."
            )
        return clips
