"""The part of a data set's YAML file that describes recordings of event sensors."""

import re
from collections import Counter
from typing import Literal, get_args

from pydantic import Field, model_validator

from avsnn.datasets_manifest.clips import MediaFile
from avsnn.datasets_manifest.patterns import Pattern
from avsnn.pydantic_base import StrictModel

# Formats of files that hold recordings of an event sensor: AEDAT 2.0 with addresses of a DVS128,
# the binary files of N-MNIST, and the HDF5 layouts of N-TIDIGITS18 and of the Spiking Heidelberg
# Digits.
EventFormat = Literal["aedat2", "n-mnist", "n-tidigits", "shd"]
EVENT_FORMATS: tuple[EventFormat, ...] = get_args(EventFormat)

# Ends of the names of files that hold many recordings: of event cameras, and of cochleas. The path
# of a recording goes on after such a name.
VISUAL_SUFFIXES, AUDIO_SUFFIXES = (".zip",), (".h5", ".hdf5")

# The column of the table of pairs that holds the part of each clip.
PART_COLUMN = "split"


class RecordingFile(StrictModel):
    """A published file that holds recordings of an event sensor."""

    path: str = Field(
        pattern=r"^[\w-][\w.-]*$", description="Name of the file, below the folder of the data set"
    )
    packed_as: str | None = Field(
        default=None,
        pattern=r"^[\w-][\w.-]*\.(zip|gz)$",
        description="Name of the published zip or gzip that holds the file and no other file; "
        "avsnn unpacks the archive once",
    )
    md5: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{32}$",
        description="MD5 of the published bytes; empty where nobody published the MD5",
    )
    bytes: int | None = Field(
        default=None, ge=1, description="Size of the published bytes, where the size is known"
    )

    @property
    def media_file(self) -> MediaFile:
        """The file as `fetch` knows files."""
        return MediaFile(self.path, None, self.bytes, md5=self.md5, packed_as=self.packed_as or "")


class Recordings(StrictModel):
    """All recordings of one modality, and what their paths say about each recording."""

    files: tuple[RecordingFile, ...] = Field(
        min_length=1, description="The published files that hold the recordings"
    )
    path: Pattern = Field(
        description="Regular expression of the path of a recording: the name of the file, a slash, "
        "and the name in the file. The group 'label' is the class; the groups 'part' (train or "
        "test, in any case) and 'group' (such as a speaker) are there where the path says so"
    )
    labels: dict[str, int] = Field(
        min_length=1,
        description="Label of each class, by the text of the group 'label'; recordings with "
        "another text are left out",
    )
    train_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of each class that is in the train part, drawn by the hash of the "
        "path; set where the path has no group 'part'",
    )

    @model_validator(mode="after")
    def _require_label_and_part(self) -> "Recordings":
        groups = re.compile(self.path).groupindex
        if "label" not in groups:
            raise ValueError("path has no group named 'label'")
        if ("part" in groups) == (self.train_share is not None):
            raise ValueError("path has a group named 'part', or train_share is set")
        return self


class Pairs(StrictModel):
    """How recordings of two sensors become clips: paired by class, in order, within each part."""

    audio: Recordings = Field(description="The recordings of the cochlea")
    visual: Recordings = Field(description="The recordings of the event camera")
    clips: int = Field(ge=1, description="Number of clips, for estimates before the files are here")
    each: Literal["audio", "visual"] = Field(
        description="Modality whose recordings are in exactly one clip each. The recordings of the "
        "other modality are taken in order, and from the start again where they are fewer"
    )

    @model_validator(mode="after")
    def _require_files_of_recordings(self) -> "Pairs":
        kinds = ((self.visual, VISUAL_SUFFIXES), (self.audio, AUDIO_SUFFIXES))
        for recordings, suffixes in kinds:
            for file in recordings.files:
                if not file.path.endswith(suffixes):
                    raise ValueError(f"{file.path!r} must end in {' or '.join(suffixes)}")
        files = (*self.visual.files, *self.audio.files)
        names = Counter(name for file in files for name in (file.path, file.packed_as) if name)
        for name, count in names.items():
            if count > 1:
                raise ValueError(f"two files of pairs are called {name!r}")
        return self

    @property
    def has_groups(self) -> bool:
        """Whether the paths of one modality name the group of each recording."""
        paths = (self.audio.path, self.visual.path)
        return any("group" in re.compile(path).groupindex for path in paths)
