"""The part of a data set's YAML file that describes zips of clips, whose table a publisher gave."""

from collections.abc import Sequence

from pydantic import Field

from avsnn.datasets_manifest.clip_table import ClipTable, FilesOfRecordings
from avsnn.datasets_manifest.clips import MediaFile
from avsnn.errors import UserError
from avsnn.pydantic_base import StrictModel


class Archive(StrictModel):
    """A published zip that holds the images, videos or sounds of many clips."""

    path: str = Field(
        pattern=r"^[\w-][\w.-]*\.zip$",
        description="Name of the zip, below the folder of the data set",
    )
    md5: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{32}$",
        description="MD5 of the zip; empty where nobody published the MD5",
    )
    bytes: int | None = Field(
        default=None, ge=1, description="Size of the zip in bytes, where the size is known"
    )

    @property
    def media_file(self) -> MediaFile:
        """The zip as `fetch` knows files."""
        return MediaFile(self.path, None, self.bytes, md5=self.md5)


def archives_of(clips: ClipTable, archives: Sequence[Archive]) -> FilesOfRecordings:
    """Return the archives that hold the files of some clips, each once."""
    wanted = {*clips.audio.paths.tolist(), *clips.visual.paths.tolist()}
    return FilesOfRecordings([one.media_file for one in archives if one.path in wanted])


def require_in_archives(clips: ClipTable, archives: Sequence[Archive], table: str) -> None:
    """Check that every path of a table leads into one of the archives.

    Raises:
        UserError: a path leads into no archive, or names no file in its archive.
    """
    known = {one.path for one in archives}
    for clip in clips:
        for file in clip.files:
            if file.path not in known or not file.member:
                raise UserError(
                    f"{table}: clip {clip.key}: {file.recording} is no path in one of the "
                    "archives; a path is the name of an archive, a slash, and the name in it."
                )
