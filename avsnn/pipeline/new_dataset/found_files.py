"""Lists the files of a folder by what their names say they are."""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from avsnn.datasets_manifest.clips import composed, is_plain_path
from avsnn.errors import UserError
from avsnn.pipeline.new_dataset.oddities import Oddities
from avsnn.pipeline.prediction.find_clips import SOUND_SUFFIXES
from avsnn.pipeline.prepare.folder_layout import walk_files

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".flv", ".mpg", ".mpeg", ".wmv", ".asf"),
    *(".ogv", ".ts", ".mts", ".m2ts", ".3gp", ".3g2", ".vob", ".mxf", ".dv"),
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# Images that people have, and that no decoder of avsnn reads.
OTHER_IMAGE_SUFFIXES = (".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".avif")
# A workbook is no table yet; the person is told to save the workbook as CSV.
TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".xls", ".ods")
# Recordings of event cameras, and files that hold many recordings.
CAMERA_SUFFIXES = (".aedat", ".bin")
COCHLEA_SUFFIXES = (".h5", ".hdf5")
ZIP_SUFFIX = ".zip"

# Files that systems and programs put beside the files of people.
SYSTEM_NAMES = ("thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db", "icon\r", "$recycle.bin")


@dataclass(frozen=True)
class FoundFile:
    """A file below the folder.

    Attributes:
        path: path below the folder, as the file system spells the path.
        size: size in bytes.
    """

    path: str
    size: int

    @property
    def suffix(self) -> str:
        """The suffix with its dot, in lower case."""
        return PurePosixPath(self.path).suffix.lower()

    @property
    def folders(self) -> tuple[str, ...]:
        """The names of the folders above the file, in composed form."""
        return PurePosixPath(composed(self.path)).parts[:-1]

    @property
    def stem(self) -> str:
        """The name without the suffix, in composed form."""
        return PurePosixPath(composed(self.path)).stem

    @property
    def path_without_suffix(self) -> str:
        """The path without the suffix, in composed form."""
        return str(PurePosixPath(composed(self.path)).with_suffix(""))


@dataclass(frozen=True)
class FoundFiles:
    """The files of a folder by kind, each kind in the order of the paths."""

    videos: list[FoundFile]
    images: list[FoundFile]
    sounds: list[FoundFile]
    camera: list[FoundFile]
    cochlea: list[FoundFile]
    zips: list[FoundFile]
    tables: list[FoundFile]

    @property
    def media(self) -> list[FoundFile]:
        """All videos, images and sounds."""
        return [*self.videos, *self.images, *self.sounds]

    @property
    def all(self) -> list[FoundFile]:
        """All files that may hold clips."""
        return [*self.media, *self.camera, *self.cochlea, *self.zips]


def find_files(folder: Path, odd: Oddities) -> FoundFiles:
    """List the files below a folder, without hidden files and files of systems.

    Args:
        folder: the folder.
        odd: receives files that cannot be used, by their names or because they are empty.

    Raises:
        UserError: the folder cannot be read.
    """
    by_kind: dict[str, list[FoundFile]] = {kind: [] for kind in _KINDS}
    others = []
    paths = sorted(walk_files(folder))
    own = _folders_of_avsnn(paths)
    for path in paths:
        if not own.isdisjoint(path.parents):
            continue
        name = path.relative_to(folder).as_posix()
        parts = name.split("/")
        if any(part.startswith(".") or part.lower() in SYSTEM_NAMES for part in parts):
            continue
        kind = next((k for k, suffixes in _KINDS.items() if path.suffix.lower() in suffixes), "")
        if path.suffix.lower() in OTHER_IMAGE_SUFFIXES:
            odd.add(
                "is an image of a kind that avsnn does not read; make a JPEG or PNG file", [name]
            )
        elif not kind:
            others.append(name)
        elif not is_plain_path(name):
            shown = name.encode("utf-8", "backslashreplace").decode()
            odd.add(
                "has a name with a character that a table cannot hold; rename the file", [shown]
            )
        elif reason := _why_unusable(path):
            odd.add(reason, [name])
        else:
            by_kind[kind].append(FoundFile(name, path.stat().st_size))
    odd.add("is no video, image, sound or table by its suffix", others)
    return FoundFiles(**by_kind)


def _folders_of_avsnn(paths: Iterable[Path]) -> set[Path]:
    """Return the folders of prepared data and of runs, which a person may keep beside clips."""
    marks = {("state", "request.json"): 2, ("metrics.jsonl",): 1}
    return {
        path.parents[height - 1]
        for path in paths
        for mark, height in marks.items()
        if path.parts[-height:] == mark
    }


def _why_unusable(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        return f"cannot be opened: {(error.strerror or 'unknown reason').lower()}"
    # Reading from a pipe or a device might never end.
    if not stat.S_ISREG(status.st_mode):
        return "is a pipe or a device"
    if not os.access(path, os.R_OK):
        return "cannot be read: its permissions forbid reading"
    return "" if status.st_size else "is empty"


def require_folder(folder: Path) -> None:
    """Refuse a folder that does not exist.

    Raises:
        UserError: there is no such folder.
    """
    # Not `Path.is_dir`, which raises an exception for a name that is too long.
    if not os.path.isdir(folder):  # noqa: PTH112
        what = "is not a folder" if os.path.lexists(folder) else "does not exist"
        raise UserError(f"{folder} {what}; give the folder that holds your clips, or a CSV file.")


_KINDS = {
    "videos": VIDEO_SUFFIXES,
    "images": IMAGE_SUFFIXES,
    "sounds": SOUND_SUFFIXES,
    "camera": CAMERA_SUFFIXES,
    "cochlea": COCHLEA_SUFFIXES,
    "zips": (ZIP_SUFFIX,),
    "tables": TABLE_SUFFIXES,
}
