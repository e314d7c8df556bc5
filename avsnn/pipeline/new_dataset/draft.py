"""A clip as the files, or a table of the user, describe the clip."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from avsnn.datasets_manifest.clips import composed

# The words that people use for the parts of a split.
PART_OF_WORD = {
    **dict.fromkeys(("train", "training", "trn", "trainset", "train_set", "train-set"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "devel", "validate"), "val"),
    **dict.fromkeys(
        ("test", "testing", "tst", "testset", "test_set", "test-set", "eval", "evaluation"), "test"
    ),
}

VisualKind = Literal["image", "video", "aedat2", "n-mnist"]
SoundKind = Literal["sound", "n-tidigits", "shd"]


@dataclass(frozen=True)
class Draft:
    """A clip of the new data set.

    Attributes:
        visual: path of the video, image or recording, below the folder.
        audio: path of the sound; the path of the video if the sound is inside the video.
        label: name of the class, in composed form.
        place: path from which the key is made; no two clips have the same place.
        part: train, val or test; empty where nobody said a part.
        group: the group that a table names; empty where no table names a group.
    """

    visual: str
    audio: str
    label: str
    place: str
    part: str = ""
    group: str = ""

    @property
    def path(self) -> str:
        """The path of the visual file without its suffix, in composed form, for patterns."""
        return str(PurePosixPath(composed(self.visual)).with_suffix(""))


@dataclass(frozen=True)
class Arrangement:
    """The clips of a folder, and how the clips were found.

    Attributes:
        drafts: the clips, in the order of their places.
        visual: what every visual file is.
        audio: what every audio file is.
        described: what the clips are, as the start of a sentence: ``videos with sound``.
        found_by: how classes were found: ``one folder for each class``.
        notes: sentences about what was decided, such as which column of a table is the class.
        group_word: what clips of one group have in common, where a table or folder says so.
        from_table: whether a table of the user names the classes.
    """

    drafts: list[Draft]
    visual: VisualKind
    audio: SoundKind
    described: str
    found_by: str
    notes: list[str] = field(default_factory=list)
    group_word: str = ""
    from_table: bool = False
