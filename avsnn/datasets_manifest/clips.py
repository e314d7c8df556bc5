"""A clip and a published file, and what their names and parts may be."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from avsnn.errors import UserError

Part = Literal["train", "val", "test"]
PARTS = ("train", "val", "test")
# What a clip shows and what a clip sounds like.
Modality = Literal["audio", "visual"]
# What stands in place of a part where a split leaves a clip out.
NO_PART = "none"
# The parts by their code in a column of parts.
PART_OF_CODE = (*PARTS, NO_PART)

# The columns of a table, in the order in which avsnn writes them. A table has one more column for
# each split that names a column.
COLUMNS = (
    *("key", "label", "group"),
    *("audio_path", "audio_sha256", "audio_bytes"),
    *("visual_path", "visual_sha256", "visual_bytes"),
)

# A key has no dot, because WebDataset ends the key of a sample at the first dot of a file name.
KEY = re.compile(r"[\w-]+")

# The end of the name of a file that holds many recordings.
CONTAINER = re.compile(r"(\.zip|\.hdf5|\.h5)/")


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


def composed(text: str) -> str:
    """Return a text in the normal form NFC, in which one character of Unicode is one letter.

    macOS gives names of files in the form NFD, in which an accent is a character of its own.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_plain_path(path: str) -> bool:
    """Return whether a path stays inside the folder to which the path is joined, on any system.

    A path does not stay there if it is absolute, empty or of Windows, or has ``.`` or ``..`` as a
    part.
    """
    parts_are_plain = not {"", ".", ".."}.intersection(path.split("/"))
    return path.isprintable() and parts_are_plain and "\\" not in path and ":" not in path
